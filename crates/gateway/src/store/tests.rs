use super::*;
use crate::budget::Period;
use crate::ledger::{BudgetPeriod, Charge};
use crate::report::GroupBy;
use crate::usage::Tokens;
use hostel_sandbox::ModelBudget;
use hostel_sandbox::label::Labels;

const KEEP: Duration = Duration::from_secs(400 * 86_400);

fn charge(sandbox: &str) -> Charge {
    Charge {
        sandbox: SandboxId::parse(sandbox).unwrap(),
        labels: Labels::from([("team/x".to_owned(), "a".to_owned())]),
        budgets: vec![BudgetPeriod { name: "team".into(), period: String::new() }],
    }
}

fn progress(id: u64, tokens: Tokens, cost_micros: u64) -> Progress {
    Progress { id, upstream: "u".into(), model: "m".into(), tokens, cost_micros }
}

fn team() -> LabelBudget {
    LabelBudget {
        name: "team".into(),
        selector: Labels::new(),
        budget: ModelBudget::default(),
        period: Period::Total,
    }
}

fn begun(id: u64, sandbox: &str) -> Begun {
    Begun { id, started: 86_400_000, session: "s".into(), charge: charge(sandbox) }
}

#[tokio::test]
async fn a_crash_leaves_what_was_known() {
    let directory = tempfile::tempdir().unwrap();
    let (store, kept) = Store::open(directory.path(), KEEP, Arc::new(Ledger::new())).unwrap();
    assert_eq!(kept.next_id, 1);
    store.create_budget(team()).await.unwrap();
    assert!(matches!(store.create_budget(team()).await, Err(Error::BudgetExists { .. })));
    let tokens = Tokens { input: 5, output: 1, ..Tokens::default() };
    for (id, sandbox) in [(1, "sb-a"), (2, "sb-b"), (3, "sb-b")] {
        store.commands().begin(begun(id, sandbox)).await.unwrap().await.unwrap().unwrap();
    }
    let permit = store.commands().permit().await.unwrap();
    permit.end(Ended {
        progress: progress(1, tokens, 70),
        begun: begun(1, "sb-a"),
        ended: 86_500_000,
        end: End::Done,
        status: Some(200),
        is_estimated: false,
    });
    store.commands().progress(progress(2, tokens, 60));
    // The process ends here without ending 2 and 3; nothing is told to the store but to stop.
    store.close().await;

    let (store, kept) = Store::open(directory.path(), KEEP, Arc::new(Ledger::new())).unwrap();
    assert_eq!(kept.next_id, 4);
    let expected = Spent { requests: 3, tokens: 12, cost_micros: 130 };
    assert_eq!(kept.budgets, [(team(), expected)]);
    let spent = store.spent(&SandboxId::parse("sb-b").unwrap()).await.unwrap();
    assert_eq!(spent, Spent { requests: 2, tokens: 6, cost_micros: 60 });
    let by = |group_by| Query { group_by, ..Query::default() };
    let rows = store.usage(by(GroupBy::Sandbox)).await.unwrap();
    let short: Vec<_> =
        rows.iter().map(|row| (row.key.as_deref().unwrap(), row.requests, row.interrupted)).collect();
    assert_eq!(short, [("sb-a", 1, 0), ("sb-b", 2, 2)], "the most expensive first");
    let keys = |rows: Vec<UsageRow>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    assert_eq!(keys(store.usage(by(GroupBy::Label("team/x".into()))).await.unwrap()), [Some("a".into())]);
    assert_eq!(keys(store.usage(by(GroupBy::Label("none".into()))).await.unwrap()), [None]);
    assert_eq!(keys(store.usage(by(GroupBy::Day)).await.unwrap()), [Some("1970-01-02".into())]);
    let mut query = by(GroupBy::None);
    query.labels = Labels::from([("team/x".to_owned(), "a".to_owned())]);
    let rows = store.usage(query.clone()).await.unwrap();
    assert_eq!((rows[0].requests, rows[0].tokens.input, rows[0].cost_micros), (3, 10, 130));
    query.labels = Labels::from([("team/x".to_owned(), "b".to_owned())]);
    assert_eq!(store.usage(query).await.unwrap(), []);
    store.delete_budget("team").await.unwrap();
    assert_eq!(store.budget_spent("team", "").await.unwrap(), Spent::default());
    store.close().await;
}

#[tokio::test]
async fn what_cannot_be_written_blocks_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::new());
    let id = SandboxId::parse("sb-a").unwrap();
    ledger.attach(&id, Labels::new(), ModelBudget::default()).unwrap();
    ledger.know(&id, Spent::default());
    let (store, _) = Store::open(directory.path(), KEEP, Arc::clone(&ledger)).unwrap();
    let crate::ledger::Verdict::Admitted(charge) = ledger.admit(&id) else { panic!("not admitted") };
    store.commands().begin(begun(1, "sb-a")).await.unwrap().await.unwrap().unwrap();
    // A trigger stands for a full disk.
    let break_it = "CREATE TRIGGER broken BEFORE UPDATE ON requests BEGIN SELECT RAISE(ABORT, 'full'); END";
    store.commands().work(|connection| run(connection, break_it)).await.unwrap();
    let mut commits = ledger.commits();
    ledger.finished(&charge);
    let permit = store.commands().permit().await.unwrap();
    permit.end(Ended {
        progress: progress(1, Tokens { input: 1, ..Tokens::default() }, 1),
        begun: Begun { charge: charge.clone(), ..begun(1, "sb-a") },
        ended: 1,
        end: End::Done,
        status: Some(200),
        is_estimated: false,
    });
    store.commands().work(|_| Ok(())).await.unwrap();
    assert!(matches!(ledger.admit(&id), crate::ledger::Verdict::Committing));
    assert!(!store.commands().are_well());
    store.commands().work(|connection| run(connection, "DROP TRIGGER broken")).await.unwrap();
    commits.changed().await.unwrap();
    assert!(store.commands().are_well());
    assert!(matches!(ledger.admit(&id), crate::ledger::Verdict::Admitted(_)));
    store.close().await;
}

#[tokio::test]
async fn old_requests_are_forgotten_and_totals_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path(), KEEP, Arc::new(Ledger::new())).unwrap();
    store.create_budget(team()).await.unwrap();
    for (id, started) in [(1, 1_000), (2, 2_000)] {
        let begun = Begun { started, ..begun(id, "sb-a") };
        store.commands().permit().await.unwrap().end(Ended {
            progress: progress(id, Tokens { input: 1, ..Tokens::default() }, 5),
            begun,
            ended: started,
            end: End::Done,
            status: Some(200),
            is_estimated: false,
        });
    }
    let open = Begun { started: 1_000, ..begun(3, "sb-a") };
    store.commands().begin(open).await.unwrap().await.unwrap().unwrap();
    let tidy = |connection: &mut Connection| write::tidy(connection, Duration::from_secs(10), 12_000);
    store.commands().work(tidy).await.unwrap();
    let rows = store.usage(Query::default()).await.unwrap();
    assert_eq!((rows[0].requests, rows[0].cost_micros), (2, 5), "one that goes on stays");
    let id = SandboxId::parse("sb-a").unwrap();
    assert_eq!(store.spent(&id).await.unwrap().cost_micros, 10);
    assert_eq!(store.budget_spent("team", "").await.unwrap().cost_micros, 10);
    store.close().await;
}

#[tokio::test]
async fn records_of_the_first_version_are_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), KEEP, Arc::new(Ledger::new())).unwrap().0;
    let store = open();
    store.commands().begin(begun(1, "sb-a")).await.unwrap().await.unwrap().unwrap();
    store.close().await;
    let first = "ALTER TABLE requests DROP COLUMN estimated; PRAGMA user_version = 1";
    Connection::open(directory.path().join("usage.db")).unwrap().execute_batch(first).unwrap();
    let store = open();
    assert_eq!(store.usage(Query::default()).await.unwrap()[0].interrupted, 1);
    store.close().await;
}
