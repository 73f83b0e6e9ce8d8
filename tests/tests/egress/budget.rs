//! A sandbox's own budget: raised while it lives, and gone with it.

use super::agent::Stage;
use super::crash::{ASK, body};
use super::setup::usable;
use hostel_tests::Setup;
use serde_json::{Value, json};

#[test]
fn a_budget_is_raised_while_its_sandbox_lives_and_ends_with_it() {
    if !usable("budgets of sandboxes") {
        return;
    }
    let mut stage = Stage::new(Setup::default());
    let daemon = &stage.daemon;
    let unpriced = body(&json!([{ "text": "done" }])).replace("claude-haiku-4-5", "nobody-priced-this");
    let ask = || {
        let asked = daemon.hostel(&["exec", "--env", &unpriced, "same", "--", "bash", "-c", ASK]);
        let answer = asked.success().to_owned();
        assert!(answer.contains("message_stop") != answer.contains("billing_error"), "{answer}");
        answer.contains("message_stop")
    };
    let bounds = ["--id", "same", "--model-requests", "1", "--model-requests-per-minute", "50"];
    assert_eq!(daemon.sandbox(&bounds), "same");
    assert!(ask() && !ask());
    assert!(daemon.log().contains("no price is configured for this model"), "{}", daemon.log());
    let raise = ["sandbox", "update", "same", "--model-requests", "2", "--budget", "3"];
    assert_eq!(daemon.hostel(&raise).success(), "same");
    assert!(ask() && !ask(), "raised by one");
    let told = daemon.hostel(&["--json", "sandbox", "get", "same"]);
    let sandbox: Value = serde_json::from_str(told.success()).unwrap();
    let budget = &sandbox["model"]["budget"];
    assert_eq!((&budget["requests"], &budget["requests_per_minute"]), (&json!(2), &json!(50)), "{budget}");
    assert_eq!(daemon.hostel(&["sandbox", "rm", "same"]).success(), "same");
    assert_eq!(daemon.sandbox(&bounds), "same");
    assert!(ask() && !ask(), "another sandbox of the same id");
    assert_eq!(stage.usage("sandbox")["total"]["requests"], 3, "usage is not forgotten");
    stage.daemon.finish();
}
