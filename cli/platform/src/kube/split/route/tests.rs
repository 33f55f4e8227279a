//! Rules of real routes, with shares put in and taken out.

use proptest::prelude::*;

use super::*;

const SHOP: Backends<'static> = Backends {
    namespace: "shop",
    stable: "orders",
    canary: "orders-canary",
};

const HEADER: &str = "x-canary";

fn mark(text: &str) -> Mark {
    text.parse().unwrap()
}

fn service(name: &str, weight: u64) -> Value {
    json!({ "group": "", "kind": "Service", "name": name, "port": 8080, "weight": weight })
}

/// As the API server has it after its defaults: several rules, filters, another backend, a redirect without any.
fn rules() -> Vec<Value> {
    json!([
        {
            "matches": [{ "path": { "type": "PathPrefix", "value": "/orders" } }],
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x-shop", "value": "1" }] } }],
            "backendRefs": [service("orders", 1)],
        },
        {
            "matches": [{ "path": { "type": "PathPrefix", "value": "/static" } }],
            "backendRefs": [service("assets", 1)],
        },
        {
            "matches": [{ "path": { "type": "Exact", "value": "/old" } }],
            "filters": [{ "type": "RequestRedirect", "requestRedirect": { "statusCode": 301 } }],
        },
        {
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "timeouts": { "request": "5s" },
            "backendRefs": [
                { "group": "", "kind": "Service", "name": "orders", "port": 8080, "weight": 300,
                  "filters": [{ "type": "ResponseHeaderModifier", "responseHeaderModifier": { "remove": ["server"] } }] },
                service("legacy", 100),
            ],
        },
    ])
    .as_array()
    .unwrap()
    .clone()
}

#[test]
fn all_rules_of_a_service_get_the_share_and_others_stay() {
    let before = rules();
    let bases = bases(&before, SHOP, None);
    let after = with_share(&before, SHOP, &bases, 10).unwrap();
    assert_eq!(
        after[0]["backendRefs"],
        json!([service("orders", 90), service("orders-canary", 10)])
    );
    assert_eq!(after[0]["filters"], before[0]["filters"]);
    assert_eq!(after[1], before[1]);
    assert_eq!(after[2], before[2]);
    // Three quarters of these requests are the service's, and a tenth of them the canary's.
    let weights: Vec<_> = refs(&after[3])
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), weight(one)))
        .collect();
    assert_eq!(weights, [("orders", 270), ("orders-canary", 30), ("legacy", 100)]);
    assert_eq!(
        after[3]["backendRefs"][1]["filters"],
        before[3]["backendRefs"][0]["filters"]
    );
    assert_eq!(percent(&after, SHOP), Some(10));
    assert_eq!(with_share(&after, SHOP, &bases, 0).unwrap(), before);
}

#[test]
fn a_lone_backend_is_never_left_at_nothing() {
    let before = vec![json!({ "backendRefs": [service("orders", 1)] })];
    let bases = bases(&before, SHOP, None);
    let all = with_share(&before, SHOP, &bases, 100).unwrap();
    assert_eq!(
        all[0]["backendRefs"],
        json!([service("orders", 0), service("orders-canary", 100)])
    );
    assert_eq!(percent(&all, SHOP), Some(100));
    assert_eq!(with_share(&all, SHOP, &bases, 0).unwrap(), before);
}

#[test]
fn what_cannot_be_said_in_whole_numbers_is_refused() {
    let rules = vec![json!({ "backendRefs": [service("orders", 1), service("legacy", 1)] })];
    let error = with_share(&rules, SHOP, &bases(&rules, SHOP, None), 10).unwrap_err();
    assert!(error.contains("multiply all weights of the rule by 100"), "{error}");
}

#[test]
fn a_service_that_gets_nothing_gets_no_canary() {
    let rules = vec![json!({ "backendRefs": [service("orders", 0), service("legacy", 1)] })];
    assert_eq!(with_share(&rules, SHOP, &bases(&rules, SHOP, None), 10).unwrap(), rules);
}

#[test]
fn the_mark_leads_to_the_canary_and_its_header_is_stripped_from_all_others() {
    let before = rules();
    let bases = bases(&before, SHOP, Some(&mark("header:x-canary=k.7")));
    let after = with_share(&before, SHOP, &bases, 10).unwrap();
    assert_eq!(after.len(), before.len() + 2);
    // Before the weighted rule, for the same path.
    assert_eq!(after[0]["backendRefs"], json!([service("orders-canary", 1)]));
    assert_eq!(
        after[0]["matches"],
        json!([
            { "path": { "type": "PathPrefix", "value": "/orders" }, "headers": [{ "type": "Exact", "name": HEADER, "value": "k.7" }] },
        ])
    );
    assert!(!strips(&after[0], HEADER));
    // A rule has one filter of a kind: theirs is extended.
    assert_eq!(
        after[1]["filters"],
        json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x-shop", "value": "1" }], "remove": [HEADER] } }])
    );
    assert_eq!(percent(&after, SHOP), Some(10));
    // The weight changes, the rules with the mark do not multiply.
    let more = with_share(&after, SHOP, &bases, 50).unwrap();
    assert_eq!((more.len(), percent(&more, SHOP)), (after.len(), Some(50)));
    assert_eq!(with_share(&more, SHOP, &bases, 0).unwrap(), before);
}

#[test]
fn a_cookie_is_found_among_others_and_nothing_is_stripped() {
    let before = rules();
    let bases = bases(&before, SHOP, Some(&mark("cookie:tester=k.7")));
    let after = with_share(&before, SHOP, &bases, 10).unwrap();
    assert_eq!(
        after[0]["matches"],
        json!([
            { "path": { "type": "PathPrefix", "value": "/orders" }, "headers": [{ "type": "RegularExpression", "name": "Cookie", "value": "(.*;)?\\s*tester=k\\.7\\s*(;.*)?" }] },
        ])
    );
    assert_eq!(after[1]["filters"], before[0]["filters"]);
    assert_eq!(with_share(&after, SHOP, &bases, 0).unwrap(), before);
}

#[test]
fn a_rule_that_stripped_the_header_before_goes_on_to_do_so() {
    let mut before = rules();
    strip(&mut before[0], HEADER);
    let bases = bases(&before, SHOP, Some(&mark("header:x-canary=k")));
    let after = with_share(&before, SHOP, &bases, 10).unwrap();
    assert_eq!(with_share(&after, SHOP, &bases, 0).unwrap(), before);
}

#[test]
fn too_many_rules_are_refused() {
    let rules: Vec<Value> = (0..9)
        .map(|number| json!({ "matches": [{ "path": { "type": "Exact", "value": format!("/{number}") } }], "backendRefs": [service("orders", 1)] }))
        .collect();
    let bases = bases(&rules, SHOP, Some(&mark("header:x-canary=k")));
    let error = with_share(&rules, SHOP, &bases, 10).unwrap_err();
    assert!(error.contains("18 rules"), "{error}");
}

#[test]
fn only_references_to_the_very_service_count() {
    let leads = |reference: Value| lead_to(&[json!({ "backendRefs": [reference] })], "shop", SHOP);
    assert!(leads(json!({ "name": "orders", "port": 8080 })));
    assert!(leads(
        json!({ "name": "orders", "namespace": "shop", "kind": "Service", "group": "" })
    ));
    assert!(!leads(json!({ "name": "orders", "namespace": "other" })));
    assert!(!leads(
        json!({ "name": "orders", "kind": "TraefikService", "group": "traefik.io" })
    ));
    assert!(!leads(json!({ "name": "orders-canary" })));
    assert!(!lead_to(&[], "shop", SHOP));
}

proptest! {
    #[test]
    fn any_way_through_shares_leads_back(
        shares in prop::collection::vec(0u8..=100, 1..8),
        by in prop::option::of(prop::sample::select(vec!["header:x-canary=k", "cookie:tester=k"])),
    ) {
        let before = rules();
        let bases = bases(&before, SHOP, by.map(mark).as_ref());
        let mut now = before.clone();
        for wanted in shares {
            now = with_share(&now, SHOP, &bases, wanted).unwrap();
            prop_assert_eq!(percent(&now, SHOP), Some(wanted));
            for rule in &now {
                let lone = refs(rule).len() == 1;
                prop_assert!(!lone || refs(rule).iter().all(|one| weight(one) > 0));
            }
        }
        prop_assert_eq!(with_share(&now, SHOP, &bases, 0).unwrap(), before);
    }
}
