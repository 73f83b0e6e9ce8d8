//! What tests do with a session.

use hostel_client::domain::process::OutputStream;
use hostel_client::{Error, Event, ExecInput, ExecOutput};

/// Everything that comes, by stream; fails on a gap or an end without an exit.
pub(crate) async fn collect(mut output: ExecOutput) -> Result<(Vec<u8>, Vec<u8>, i32), Error> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match output.next().await.expect("an exit before the end")? {
            Event::Output { stream, offset, data } => {
                let so_far = if stream == OutputStream::Stdout { &mut stdout } else { &mut stderr };
                assert_eq!(offset, u64::try_from(so_far.len()).unwrap());
                so_far.extend_from_slice(&data);
            }
            Event::Gap { missing, .. } => panic!("a gap: {missing:?}"),
            Event::Exited(status) => {
                assert!(output.next().await.is_none(), "the exit is last");
                return Ok((stdout, stderr, status.exit_code.unwrap()));
            }
        }
    }
}

/// Writes in odd pieces, and ends stdin.
pub(crate) async fn write_all(input: ExecInput, data: &[u8]) -> Result<(), Error> {
    for piece in data.chunks(7001) {
        input.write(piece.to_vec()).await?;
    }
    input.close().await
}
