use super::*;
use proptest::prelude::*;

fn rule(action: RuleAction, host: &str, ports: &[u16]) -> NetworkRule {
    NetworkRule { action, ports: ports.to_vec(), ..NetworkRule::allow(host.parse().unwrap()) }
}

fn ruleset(policy: &NetworkPolicy) -> Ruleset {
    Ruleset::new(policy, &Presets::default()).unwrap()
}

#[test]
fn a_rule_that_denies_wins() {
    let rules = ruleset(&NetworkPolicy::allowlist(vec![
        rule(RuleAction::Allow, "*.example.com", &[]),
        rule(RuleAction::Deny, "bad.example.com", &[]),
    ]));
    assert!(rules.connect("good.example.com", 443, Seen::Opaque).allowed);
    let verdict = rules.connect("bad.example.com", 443, Seen::Opaque);
    assert_eq!((verdict.allowed, verdict.reason), (false, Reason::DeniedByRule));
    assert_eq!(verdict.rule.as_deref(), Some("deny bad.example.com"));
    assert!(!rules.lookup("bad.example.com").allowed && rules.lookup("good.example.com").allowed);
    assert_eq!(rules.connect("good.example.com", 22, Seen::Opaque).reason, Reason::NoRule);
}

#[test]
fn a_path_is_denied_in_any_case_and_allowed_in_its_own() {
    let about = |action, prefix: &str| NetworkRule {
        path_prefix: Some(prefix.to_owned()),
        open_tls: true,
        ..rule(action, "api.example.com", &[443])
    };
    let denied = vec![rule(RuleAction::Allow, "api.example.com", &[]), about(RuleAction::Deny, "/admin")];
    let rules = ruleset(&NetworkPolicy::allowlist(denied));
    for path in ["/admin", "/Admin/users", "/ADMINS"] {
        assert!(!rules.request("api.example.com", 443, "GET", path).allowed, "{path}");
    }
    assert!(rules.request("api.example.com", 443, "GET", "/adm").allowed);
    let rules = ruleset(&NetworkPolicy::allowlist(vec![about(RuleAction::Allow, "/v1/")]));
    assert!(!rules.request("api.example.com", 443, "GET", "/V1/x").allowed);
    let coded = NetworkPolicy::allowlist(vec![about(RuleAction::Deny, "/a%20b/")]);
    assert!(coded.validate().is_err(), "no decoded path has a %");
}

#[test]
fn a_change_of_any_rule_touches_a_host_whose_requests_are_looked_at() {
    let any = rule(RuleAction::Allow, "*.example.com", &[]);
    let read = NetworkRule {
        methods: vec!["GET".to_owned()],
        open_tls: true,
        ..rule(RuleAction::Allow, "api.example.com", &[])
    };
    let both = ruleset(&NetworkPolicy::allowlist(vec![any.clone(), read.clone()]));
    let (narrow, wide) =
        (ruleset(&NetworkPolicy::allowlist(vec![read])), ruleset(&NetworkPolicy::allowlist(vec![any])));
    assert_ne!(both.about_requests("api.example.com", 443), narrow.about_requests("api.example.com", 443));
    assert_ne!(both.about_requests("api.example.com", 443), wide.about_requests("api.example.com", 443));
    assert_eq!(both.about_requests("www.example.com", 443), wide.about_requests("www.example.com", 443));
}

#[test]
fn what_is_not_seen_is_not_allowed_by_a_rule_about_requests() {
    let read = NetworkRule {
        methods: vec!["GET".to_owned()],
        path_prefix: Some("/v1/".to_owned()),
        open_tls: true,
        ..rule(RuleAction::Allow, "api.example.com", &[])
    };
    let rules = ruleset(&NetworkPolicy::allowlist(vec![read]));
    assert!(!rules.connect("api.example.com", 443, Seen::Opaque).allowed);
    assert!(rules.connect("api.example.com", 443, Seen::Requests).allowed);
    assert!(rules.request("api.example.com", 443, "GET", "/v1/x").allowed);
    assert!(!rules.request("api.example.com", 443, "POST", "/v1/x").allowed);
    assert!(!rules.request("api.example.com", 443, "GET", "/v2/x").allowed);
    assert!(rules.opens_tls("api.example.com", 443) && !rules.opens_tls("api.example.com", 8443));
}

#[test]
fn a_method_in_another_case_gets_around_no_rule() {
    let about = |action, method: &str| NetworkRule {
        methods: vec![method.to_owned()],
        ..rule(action, "api.example.com", &[80])
    };
    let denied = NetworkPolicy { rules: vec![about(RuleAction::Deny, "POST")], ..NetworkPolicy::open() };
    let rules = ruleset(&denied);
    assert!(!rules.request("api.example.com", 80, "post", "/").allowed);
    assert!(!rules.request("api.example.com", 80, "POST", "/").allowed);
    assert!(rules.request("api.example.com", 80, "GET", "/").allowed);
    let rules = ruleset(&NetworkPolicy::allowlist(vec![about(RuleAction::Allow, "GET")]));
    assert!(rules.request("api.example.com", 80, "GET", "/").allowed);
    assert!(!rules.request("api.example.com", 80, "get", "/").allowed);
}

#[test]
fn a_wide_block_does_not_mean_special_addresses() {
    let address = "10.1.2.3".parse().unwrap();
    let wide = ruleset(&NetworkPolicy::allowlist(vec![rule(RuleAction::Allow, "0.0.0.0/0", &[])]));
    assert!(wide.address(address, 443).allowed && !wide.lists(address, Some(443)));
    let narrow = ruleset(&NetworkPolicy::allowlist(vec![rule(RuleAction::Allow, "10.1.0.0/16", &[])]));
    assert!(narrow.lists(address, Some(443)) && !narrow.lists(address, Some(22)));
}

#[test]
fn a_preset_that_is_not_there_is_an_error() {
    let policy = NetworkPolicy { presets: vec!["nothing".to_owned()], ..NetworkPolicy::allowlist(vec![]) };
    let error = Ruleset::new(&policy, &Presets::default()).unwrap_err().to_string();
    assert!(error.contains("\"nothing\"") && error.contains("model-api"), "{error}");
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]\\.example\\.(com|org)",
        "\\*\\.example\\.(com|org)",
        Just("10.0.0.0/8".to_owned()),
        Just("198.18.0.0/15".to_owned()),
        Just("0.0.0.0/0".to_owned()),
    ]
}

fn any_rule(action: RuleAction) -> impl Strategy<Value = NetworkRule> {
    (any_host(), prop::collection::vec(prop_oneof![Just(80u16), Just(443), Just(22)], 0..3))
        .prop_map(move |(host, ports)| rule(action, &host, &ports))
}

fn any_rules() -> impl Strategy<Value = Vec<NetworkRule>> {
    let one = prop_oneof![any_rule(RuleAction::Allow), any_rule(RuleAction::Deny)];
    prop::collection::vec(one, 0..6)
}

fn everything(rules: &Ruleset) -> Vec<bool> {
    let mut answers = Vec::new();
    for port in [22, 80, 443] {
        for name in ["a.example.com", "b.example.com", "a.example.org", "example.com"] {
            answers.push(rules.connect(name, port, Seen::Opaque).allowed);
            answers.push(rules.request(name, port, "GET", "/").allowed);
            answers.push(rules.lookup(name).allowed);
        }
        for address in ["10.1.1.1", "198.18.0.1", "1.1.1.1"] {
            answers.push(rules.address(address.parse().unwrap(), port).allowed);
        }
    }
    answers
}

proptest! {
    #[test]
    fn a_denial_only_takes_away(rules in any_rules(), denial in any_rule(RuleAction::Deny)) {
        let before = everything(&ruleset(&NetworkPolicy::allowlist(rules.clone())));
        let after = everything(&ruleset(&NetworkPolicy::allowlist([rules, vec![denial]].concat())));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| *before || !*after));
    }

    #[test]
    fn an_allowance_only_gives(rules in any_rules(), allowance in any_rule(RuleAction::Allow)) {
        let before = everything(&ruleset(&NetworkPolicy::allowlist(rules.clone())));
        let after = everything(&ruleset(&NetworkPolicy::allowlist([rules, vec![allowance]].concat())));
        prop_assert!(before.iter().zip(&after).all(|(before, after)| !*before || *after));
    }

    #[test]
    fn the_order_of_rules_does_not_matter(rules in any_rules()) {
        let mut turned = rules.clone();
        turned.reverse();
        let (one, other) = (NetworkPolicy::allowlist(rules), NetworkPolicy::allowlist(turned));
        prop_assert_eq!(everything(&ruleset(&one)), everything(&ruleset(&other)));
    }

    #[test]
    fn nothing_is_allowed_without_a_rule(denials in prop::collection::vec(any_rule(RuleAction::Deny), 0..4)) {
        prop_assert!(everything(&ruleset(&NetworkPolicy::allowlist(denials))).iter().all(|allowed| !allowed));
        prop_assert!(everything(&Ruleset::none()).iter().all(|allowed| !allowed));
    }
}
