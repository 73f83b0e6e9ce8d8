//! What the terminal looks like from inside.

/// Prints `tty ROWS COLUMNS` or `no tty`.
pub(crate) fn print() -> std::io::Result<()> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: size lives until the call returns.
    let answer = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    // SAFETY: plain number.
    let is_terminal = unsafe { libc::isatty(0) } == 1;
    if is_terminal && answer == 0 {
        println!("tty {} {}", size.ws_row, size.ws_col);
    } else {
        println!("no tty");
    }
    Ok(())
}
