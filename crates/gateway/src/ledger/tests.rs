use super::*;
use crate::budget::Period;

fn ledger(limits: ModelBudget) -> (Ledger, SandboxId) {
    let (ledger, id) = (Ledger::new(), SandboxId::parse("sb-a").unwrap());
    let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
    ledger.attach(&id, labels, limits).unwrap();
    ledger.know(&id, Spent::default());
    (ledger, id)
}

fn admitted(verdict: Verdict) -> Charge {
    match verdict {
        Verdict::Admitted(charge) => charge,
        other => panic!("{other:?}"),
    }
}

fn refused(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn team(cost: u64, period: Period) -> LabelBudget {
    LabelBudget {
        name: "team-a".into(),
        selector: Labels::from([("team".to_owned(), "a".to_owned())]),
        budget: ModelBudget { cost_micros: Some(cost), ..ModelBudget::default() },
        period,
    }
}

#[test]
fn usage_on_its_way_to_the_disk_holds_the_next_request_back() {
    let (ledger, id) = ledger(ModelBudget { cost_micros: Some(100), ..ModelBudget::default() });
    let charge = admitted(ledger.admit(&id));
    ledger.seen(&charge, 10, 60);
    admitted(ledger.admit(&id));
    ledger.finished(&charge);
    assert!(matches!(ledger.admit(&id), Verdict::Committing));
    ledger.committed([&charge].into_iter());
    admitted(ledger.admit(&id));
    ledger.seen(&charge, 10, 40);
    let refusal = refused(ledger.admit(&id));
    assert_eq!(refusal.reason, Reason::Cost);
    assert!(refusal.message.contains("$0.000100 of $0.000100"), "{}", refusal.message);
    ledger.set_limits(&id, ModelBudget { cost_micros: Some(101), ..ModelBudget::default() });
    admitted(ledger.admit(&id));
}

#[test]
fn what_was_spent_before_must_be_known_first() {
    let (ledger, id) = (Ledger::new(), SandboxId::parse("sb-b").unwrap());
    assert!(matches!(ledger.admit(&id), Verdict::Detached));
    ledger.attach(&id, Labels::new(), ModelBudget { requests: Some(2), ..ModelBudget::default() }).unwrap();
    assert!(matches!(ledger.admit(&id), Verdict::Unknown));
    ledger.know(&id, Spent { requests: 1, ..Spent::default() });
    ledger.know(&id, Spent::default());
    admitted(ledger.admit(&id));
    assert_eq!(refused(ledger.admit(&id)).reason, Reason::Requests);
    assert!(matches!(ledger.attach(&id, Labels::new(), ModelBudget::default()), Err(Error::Attached { .. })));
}

#[test]
fn label_budgets_hold_for_all_that_they_cover() {
    let (ledger, id) = ledger(ModelBudget::default());
    let other = SandboxId::parse("sb-other").unwrap();
    ledger.attach(&other, Labels::new(), ModelBudget::default()).unwrap();
    ledger.know(&other, Spent::default());
    ledger.put_budget(team(50, Period::Month), None);
    let charge = admitted(ledger.admit(&id));
    ledger.seen(&charge, 1, 50);
    let refusal = refused(ledger.admit(&id));
    assert!(refusal.message.contains("\"team-a\" for 20"), "{}", refusal.message);
    refused(ledger.look(&id));
    admitted(ledger.admit(&other));
    ledger.put_budget(team(51, Period::Month), None);
    admitted(ledger.admit(&id));
    assert_eq!(ledger.budget("team-a").unwrap().spent, Spent { requests: 2, tokens: 1, cost_micros: 50 });
}

#[test]
fn a_detached_sandbox_stays_until_its_requests_are_on_the_disk() {
    let (ledger, id) = ledger(ModelBudget::default());
    let charge = admitted(ledger.admit(&id));
    ledger.detach(&id);
    assert!(matches!(ledger.admit(&id), Verdict::Detached));
    assert_eq!(ledger.in_flight(), 1);
    ledger.finished(&charge);
    assert!(ledger.spent(&id).is_some());
    ledger.committed([&charge].into_iter());
    assert!(ledger.spent(&id).is_none());
}

#[test]
fn a_clock_that_is_set_back_ends_no_period() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut shared =
        Shared { definition: team(50, Period::Day), period: String::new(), scope: Scope::default() };
    shared.roll(at("2026-11-22T00:00:01Z"));
    shared.scope.spent.add(1, 50);
    let spent = |shared: &Shared| (shared.period.clone(), shared.scope.spent.cost_micros);
    shared.roll(at("2026-11-21T23:59:59Z"));
    assert_eq!(spent(&shared), ("2026-11-22".to_owned(), 50));
    shared.define(team(60, Period::Day), at("2026-11-21T23:59:59Z"));
    assert_eq!(spent(&shared), ("2026-11-22".to_owned(), 50));
    shared.roll(at("2026-11-23T00:00:00Z"));
    assert_eq!(spent(&shared), ("2026-11-23".to_owned(), 0));
    shared.define(team(60, Period::Total), at("2026-11-23T00:00:00Z"));
    assert_eq!(shared.period, "");
    shared.define(team(60, Period::Month), at("2026-11-23T00:00:00Z"));
    assert_eq!(shared.period, "2026-11");
}
