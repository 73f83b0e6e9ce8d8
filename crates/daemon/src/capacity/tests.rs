use super::*;
use futures::FutureExt as _;

fn node(sandboxes: u64) -> Capacity {
    let budget = Resources { memory_bytes: 100, sandboxes, ..Resources::default() };
    let rules = Rules { reserve: Resources::default(), ..Rules::default() };
    let admission = Admission::new(budget, Overcommit::default(), rules, Time::default());
    let state = State { admission, waiting: HashMap::new(), last_ticket: 0 };
    Capacity(Arc::new(Inner { start: Instant::now(), state: Mutex::new(state) }))
}

fn one(memory_bytes: u64) -> Needs {
    Needs { memory_bytes, sandboxes: 1, ..Needs::default() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn taken(node: &Capacity) -> (u64, u64) {
    let taken = node.status().taken;
    (taken.memory_bytes, taken.sandboxes)
}

#[tokio::test]
async fn who_waits_gets_what_is_given_back() {
    let node = node(2);
    let first = node.take(one(60), Priority::Cold, soon()).await.unwrap();
    let mut second = Box::pin(node.take(one(60), Priority::Cold, soon()));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    let second = second.await.unwrap();
    assert_eq!(taken(&node), (60, 1));
    drop(second);
    assert_eq!(taken(&node), (0, 0));
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_and_nothing_taken() {
    let node = node(1);
    let first = node.take(one(1), Priority::Cold, soon()).await.unwrap();
    let mut gone = Box::pin(node.take(one(1), Priority::Cold, soon()));
    assert!((&mut gone).now_or_never().is_none());
    drop(gone);
    assert_eq!(node.status().waiting_cold, 0);
    // Decided, but not told any more.
    let mut told_late = Box::pin(node.take(one(1), Priority::Cold, soon()));
    assert!((&mut told_late).now_or_never().is_none());
    drop(first);
    drop(told_late);
    assert_eq!(taken(&node), (0, 0));
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_says_what_is_short() {
    let node = node(5);
    let _all = node.take(one(100), Priority::Cold, soon()).await.unwrap();
    let until = Instant::now() + Duration::from_millis(20);
    let Err(Error::NoRoom { detail, retry_after }) = node.take(one(30), Priority::Cold, until).await else {
        panic!("there is no room")
    };
    assert!(detail.contains("memory, bytes: 30 wanted, 100 of 100 taken"), "{detail}");
    assert!(retry_after.is_some());
    let too_much = node.take(one(101), Priority::Cold, soon()).await;
    assert!(matches!(too_much, Err(Error::NoRoom { retry_after: None, .. })));
}

#[tokio::test]
async fn a_room_changes_its_size_or_stays_as_it_is() {
    let node = node(2);
    let mut room = node.take(one(40), Priority::Cold, soon()).await.unwrap();
    let other = node.take(one(40), Priority::Cold, soon()).await.unwrap();
    assert!(room.resize(one(70)).is_err());
    assert_eq!(taken(&node), (80, 2));
    room.resize(one(60)).unwrap();
    room.resize(one(10)).unwrap();
    assert_eq!(taken(&node), (50, 2));
    drop((room, other));
    assert_eq!(taken(&node), (0, 0));
}

#[tokio::test]
async fn nothing_is_taken_twice_by_many_at_once() {
    let node = node(1000);
    let work = (0..200u64).map(|index| {
        let node = node.clone();
        async move {
            let room = node.take(one(1 + index % 30), Priority::Cold, soon()).await.unwrap();
            assert!(node.status().taken.memory_bytes <= 100);
            tokio::task::yield_now().await;
            drop(room);
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(taken(&node), (0, 0));
}
