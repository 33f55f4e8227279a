//! Pushing, against the memory twin and against a server that speaks Grafana's HTTP API as its documentation and source
//! say, the older one and the newer one. It was never tried on a Grafana.

#[cfg(test)]
#[path = "push/server.rs"]
mod server;

use dashboards::push::http::Http;
use dashboards::push::memory::Memory;
use dashboards::push::{Action, Board, Folder, Grafana, PushError, Refusal, Stored, apply, plan};
use endpoint::EndpointError;
use serde_json::{Value, json};
use server::{Api, Server};

const TOKEN: &str = "glsa_0123456789";

fn board(uid: &str, title: &str) -> Board {
    let panel = json!({ "id": 1, "type": "timeseries", "title": "Load", "gridPos": { "x": 0, "y": 0, "w": 8, "h": 8 },
        "targets": [{ "refId": "A", "expr": "up" }] });
    Board {
        uid: uid.to_owned(),
        title: title.to_owned(),
        spec: json!({ "uid": uid, "title": title, "schemaVersion": 42, "id": null, "panels": [panel] }),
    }
}

fn folder() -> Folder {
    Folder {
        uid: "opsctl".to_owned(),
        title: "opsctl".to_owned(),
    }
}

/// Everything that any Grafana has to do.
async fn contract(grafana: &impl Grafana) {
    let boards = || vec![board("one", "One"), board("two/../ü", "Two")];
    let first = plan(grafana, boards(), folder()).await.expect("Grafana does it");
    assert!(first.makes_folder && !first.is_empty());
    assert!(
        first.steps.iter().all(|step| step.action == Action::Create),
        "{:?}",
        first.steps
    );
    // A plan changes nothing.
    assert_eq!(plan(grafana, boards(), folder()).await.expect("Grafana does it"), first);
    for outcome in apply(grafana, &first).await.expect("Grafana does it") {
        outcome.result.expect("Grafana does it").expect("Grafana does it");
    }
    // The same again does nothing.
    let again = plan(grafana, boards(), folder()).await.expect("Grafana does it");
    assert!(again.is_empty(), "{again:?}");
    // One that differs is shown by the name of what differs, and written.
    let mut other = boards();
    other[0].spec["panels"][0]["targets"][0]["expr"] = "up == 0".into();
    let changed = plan(grafana, other.clone(), folder()).await.expect("Grafana does it");
    let Action::Update {
        changes, moves_from, ..
    } = &changed.steps[0].action
    else {
        panic!("{:?}", changed.steps[0].action);
    };
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].path, "panels[\"Load\"].targets[A].expr");
    assert_eq!(
        changes[0].to_string(),
        "- panels[\"Load\"].targets[A].expr: \"up\"\n+ panels[\"Load\"].targets[A].expr: \"up == 0\""
    );
    assert_eq!((moves_from, &changed.steps[1].action), (&None, &Action::Unchanged));
    // Made from what was read before it was written again, the older plan finds that it is late.
    let late = changed.clone();
    apply(grafana, &changed)
        .await
        .expect("Grafana does it")
        .remove(0)
        .result
        .expect("Grafana does it")
        .expect("Grafana does it");
    let outcomes = apply(grafana, &late).await.expect("Grafana does it");
    assert!(
        matches!(&outcomes[0].result, Some(Err(PushError::Changed { uid })) if uid == "one"),
        "{outcomes:?}"
    );
    // So does one that takes a board for new that is there now.
    let outcomes = apply(grafana, &first).await.expect("Grafana does it");
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome.result, Some(Err(PushError::Changed { .. })))),
        "{outcomes:?}"
    );
    assert!(
        plan(grafana, other, folder())
            .await
            .expect("Grafana does it")
            .is_empty()
    );
    // Into another folder it moves.
    let elsewhere = Folder {
        uid: "elsewhere".to_owned(),
        title: "Elsewhere".to_owned(),
    };
    let moved = plan(grafana, vec![boards().remove(1)], elsewhere.clone())
        .await
        .expect("Grafana does it");
    let Action::Update {
        changes, moves_from, ..
    } = &moved.steps[0].action
    else {
        panic!("{:?}", moved.steps[0].action);
    };
    assert_eq!((changes.len(), moves_from.as_deref()), (0, Some("opsctl")));
    apply(grafana, &moved)
        .await
        .expect("Grafana does it")
        .remove(0)
        .result
        .expect("Grafana does it")
        .expect("Grafana does it");
    assert!(
        plan(grafana, vec![boards().remove(1)], elsewhere)
            .await
            .expect("Grafana does it")
            .is_empty()
    );
}

#[tokio::test]
async fn in_memory() {
    let grafana = Memory::new();
    contract(&grafana).await;
    assert_eq!(grafana.writes(), 4);
}

#[tokio::test]
async fn over_the_older_api() {
    let server = Server::start(Api::Older, TOKEN).await;
    contract(&server.client(TOKEN)).await;
    server.assert_only_asked("/api/");
}

#[tokio::test]
async fn over_the_newer_api() {
    for version in ["v1", "v1beta1"] {
        let server = Server::start(Api::Newer(version), TOKEN).await;
        contract(&server.client(TOKEN)).await;
    }
}

#[tokio::test]
async fn newer_boards_are_left_alone() {
    let grafana = Memory::new();
    let with = |change: &dyn Fn(&mut Stored)| {
        let mut stored = Stored::classic(json!({ "title": "Changed", "schemaVersion": 42 }), "7");
        stored.folder = Some("opsctl".to_owned());
        change(&mut stored);
        stored
    };
    grafana.put("model", with(&|stored| stored.model = Some("v2".to_owned())));
    grafana.put("schema", with(&|stored| stored.spec["schemaVersion"] = 43.into()));
    grafana.put(
        "file",
        with(&|stored| stored.managed_by = Some("the file a.json".to_owned())),
    );
    grafana.put("plain", with(&|_| {}));
    let boards = ["model", "schema", "file", "plain"].map(|uid| board(uid, uid)).to_vec();
    let plan = plan(&grafana, boards, folder()).await.unwrap();
    let words: Vec<&str> = plan.steps.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(words, ["refused", "refused", "refused", "update"]);
    let refused: Vec<&Refusal> = plan.refused().map(|(_, why)| why).collect();
    assert_eq!(*refused[0], Refusal::NewerModel { model: "v2".to_owned() });
    assert_eq!(*refused[1], Refusal::NewerSchema { stored: 43, ours: 42 });
    assert_eq!(
        refused[2].to_string(),
        "it is kept in step with the file a.json, which would undo the change"
    );
    let outcomes = apply(&grafana, &plan).await.unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_some()).count(), 1);
    assert_eq!(grafana.writes(), 1);
}

#[tokio::test]
async fn a_board_of_the_second_model_is_known_over_both_apis() {
    for (api, expected) in [(Api::Older, "v2beta1"), (Api::Newer("v1"), "v2")] {
        let server = Server::start(api, TOKEN).await;
        server.keep_in_second_model("one", expected);
        let plan = plan(&server.client(TOKEN), vec![board("one", "One")], folder())
            .await
            .unwrap();
        let refusal = Refusal::NewerModel {
            model: expected.to_owned(),
        };
        assert_eq!(plan.steps[0].action, Action::Refused(refusal));
    }
}

#[tokio::test]
async fn a_provisioned_board_is_left_alone() {
    let server = Server::start(Api::Older, TOKEN).await;
    server.provision("one", "boards/one.json");
    let plan = plan(&server.client(TOKEN), vec![board("one", "One")], folder())
        .await
        .unwrap();
    let by = "the file boards/one.json".to_owned();
    assert_eq!(plan.steps[0].action, Action::Refused(Refusal::Managed { by }));
}

/// What became of a plan that could not be made.
async fn failure(client: &Http) -> EndpointError {
    match plan(client, vec![board("one", "One")], folder()).await {
        Err(PushError::Endpoint(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_token_is_said_and_never_shown() {
    let server = Server::start(Api::Older, TOKEN).await;
    let client = server.client("glsa_wrong_secret");
    let error = failure(&client).await;
    assert!(
        error.to_string().ends_with(" refuses the token (HTTP 401)"),
        "{error:?}"
    );
    let shown = format!("{error} {error:?} {client:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn what_is_no_grafana_is_said() {
    type Is = fn(&EndpointError) -> bool;
    let cases: [(&str, Is); 5] = [
        ("page", |error| matches!(error, EndpointError::Foreign { .. })),
        ("large", |error| matches!(error, EndpointError::TooLarge { .. })),
        ("redirect", |error| matches!(error, EndpointError::Redirected { .. })),
        (
            "echo",
            |error| matches!(error, EndpointError::Refused { message, .. } if message == "you said Bearer …"),
        ),
        (
            "broken",
            |error| matches!(error, EndpointError::Refused { status, .. } if status.as_u16() == 500),
        ),
    ];
    for (how, expected) in cases {
        let server = Server::strange(how).await;
        let error = failure(&server.client(TOKEN)).await;
        assert!(expected(&error), "{how}: {error:?}");
    }
    // Nobody listens there.
    let client = Http::new("http://127.0.0.1:1", None, "default", None).unwrap();
    let error = failure(&client).await;
    assert!(matches!(error, EndpointError::Unreachable { .. }), "{error:?}");
}

/// What leads elsewhere in an address is no board that is there; that it is none that can be made is Grafana's to say.
#[tokio::test]
async fn a_uid_that_leads_elsewhere_is_never_part_of_an_address() {
    let server = Server::start(Api::Older, TOKEN).await;
    for uid in ["", ".", ".."] {
        let elsewhere = Folder {
            uid: uid.to_owned(),
            title: "x".to_owned(),
        };
        let plan = plan(&server.client(TOKEN), vec![board(uid, "x")], elsewhere)
            .await
            .unwrap();
        assert!(plan.makes_folder);
        assert_eq!(plan.steps[0].action, Action::Create);
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn a_difference_is_named_and_what_grafana_adds_is_none() {
    let differs = |before: Value, after: Value| -> Vec<String> {
        dashboards::push::diff::between(&before, &after)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        differs(
            json!({ "id": 7, "version": 3, "links": [] }),
            json!({ "id": null, "links": null })
        ),
        [""; 0]
    );
    assert_eq!(differs(json!({ "a": 1 }), json!({ "a": 1.0 })), [""; 0]);
    assert_eq!(
        differs(json!({ "tags": ["a"] }), json!({ "tags": ["a", "b"] })),
        ["+ tags[1]: \"b\""]
    );
    let panel = |title: &str, y: u32| json!({ "title": title, "gridPos": { "y": y } });
    let before = json!({ "panels": [panel("A", 0), panel("B", 8)] });
    // A new panel above moves the others; that is what is said, and no more.
    let after = json!({ "panels": [panel("New", 0), panel("A", 8), panel("B", 16)] });
    assert_eq!(
        differs(before.clone(), after),
        [
            "+ panels[\"New\"]: {\"title\":\"New\",\"gridPos\":{\"y\":0}}",
            "- panels[\"A\"].gridPos.y: 0\n+ panels[\"A\"].gridPos.y: 8",
            "- panels[\"B\"].gridPos.y: 8\n+ panels[\"B\"].gridPos.y: 16",
        ]
    );
    assert_eq!(
        differs(before, json!({ "panels": [panel("B", 8)] })),
        ["- panels[\"A\"]: {\"title\":\"A\",\"gridPos\":{\"y\":0}}"]
    );
}
