//! Boards through the real binary: written, compared, checked, mended, drawn from a recording and from a real Prometheus,
//! and pushed to a server that speaks Grafana's API.

#[cfg(test)]
#[path = "../../dashboards/tests/push/server.rs"]
mod grafana;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;

use grafana::Api;
use peers::{Server, servers};
use sandbox::{Ran, Sandbox};
use serde_json::{Value, json};

const BASE: &str = include_str!("../../dashboards/tests/check/base.json");
const KINDS: &str = include_str!("../../dashboards/tests/draw/boards/kinds.json");
const RECORDED: &str = include_str!("../../dashboards/tests/draw/boards/kinds.data.json");

const TOKEN: &str = "glsa_0123456789";

/// What is typed about the catalogue of the reference services.
fn reference<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../opsctl.toml");
    [&["dashboard"], words, &["--config", file]].concat()
}

/// A catalogue with a service, and more in its environment.
fn shop(more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "opsctl.toml",
        &format!("version = 1\n[env.local]\n{more}\n[service.shop]\nobjectives = {{ availability = \"99%\" }}\n"),
    );
    sandbox
}

fn actions(ran: &Ran) -> Vec<(String, String)> {
    let document = ran.json();
    assert_eq!(document["schema"], "opsctl.dashboard_render/v1");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let files = document["files"].as_array().expect("files");
    files
        .iter()
        .map(|file| (text(&file["path"]), text(&file["change"])))
        .collect()
}

#[test]
fn boards_of_the_reference_services_are_written_and_compared_and_nothing_is_found_in_them() {
    let sandbox = Sandbox::new();
    for form in ["v1", "v2", "json"] {
        let words = reference(&["render", "--format", form, "--out", "boards", "--json"]);
        let made = actions(&sandbox.run(&words).ended(0));
        assert!(made.len() >= 8, "{made:?}");
        let found = sandbox.run(&["dashboard", "check", "boards", "--json"]).ended(0).json();
        assert_eq!(found["schema"], "opsctl.findings/v1");
        assert_eq!(found["findings"], json!([]), "{form}");
        assert_eq!(found["files"].as_array().expect("files").len(), made.len());
    }
    sandbox.run(&reference(&["check"])).ended(0);

    let compare = reference(&["render", "--out", "boards", "--check", "--json"]);
    assert!(
        actions(&sandbox.run(&compare).ended(0))
            .iter()
            .all(|(_, action)| action == "keep")
    );
    // Somebody changed one, one is of a time when there were more, and one is somebody's own.
    let text = fs::read_to_string(sandbox.path("boards/opsctl-requests.json")).expect("the board");
    sandbox.write("boards/opsctl-requests.json", &text.replace("Requests", "Rquests"));
    sandbox.write("boards/opsctl-gone.json", "{}");
    sandbox.write("boards/own.json", "{}");
    let different = [
        ("boards/opsctl-gone.json", "remove"),
        ("boards/opsctl-requests.json", "update"),
    ];
    let different = different.map(|(path, action)| (path.to_owned(), action.to_owned()));
    for (words, code) in [
        (compare.clone(), 4),
        (reference(&["render", "--out", "boards", "-n", "--json"]), 0),
    ] {
        let mut told = actions(&sandbox.run(&words).ended(code));
        told.retain(|(_, action)| action != "keep");
        assert_eq!(told, different);
    }
    let told = sandbox.run(&reference(&["render", "--out", "boards"])).ended(0);
    assert_eq!(
        told.stdout,
        "remove  boards/opsctl-gone.json\nupdate  boards/opsctl-requests.json\n"
    );
    sandbox.run(&compare).ended(0);
    assert_eq!(
        fs::read_to_string(sandbox.path("boards/opsctl-requests.json")).expect("it"),
        text
    );
    assert!(sandbox.path("boards/own.json").exists());

    // One board goes to stdout as it lies in its file.
    let one = sandbox.run(&reference(&["render", "requests"])).ended(0);
    assert_eq!(one.stdout, text);
    sandbox
        .run(&reference(&["render"]))
        .ended(2)
        .says("opsctl-requests.json");
    sandbox
        .run(&reference(&["render", "reqests"]))
        .ended(2)
        .says("did you mean `requests`?");
}

#[test]
fn a_grafana_is_given_its_tree_and_its_config_maps() {
    let sandbox = shop(
        "prometheus = \"http://prometheus:9090\"\nloki = \"http://loki:3100\"\ntraces = \"http://tempo:3200\"\nnamespace = \"watch\"",
    );
    let tree = [
        "dashboard",
        "render",
        "--format",
        "provisioning",
        "--folder",
        "Shop",
        "--tempo",
        "--out",
        "grafana",
    ];
    let told = sandbox.run(&tree).ended(0).stdout;
    for path in [
        "grafana/provisioning/datasources/opsctl.yaml",
        "grafana/provisioning/dashboards/opsctl.yaml",
        "grafana/dashboards/Shop/opsctl-requests.json",
    ] {
        assert!(told.contains(&format!("create  {path}\n")), "{told}");
        assert!(sandbox.path(path).exists());
    }
    let sources = fs::read_to_string(sandbox.path("grafana/provisioning/datasources/opsctl.yaml")).expect("it");
    assert!(
        sources.contains("http://tempo:3200") && sources.contains("type: tempo"),
        "{sources}"
    );
    sandbox.run(&[&tree[..], &["--check"]].concat()).ended(0);

    let maps = sandbox
        .run(&["dashboard", "render", "--format", "configmaps"])
        .ended(0)
        .stdout;
    let boards = fs::read_dir(sandbox.path("grafana/dashboards/Shop"))
        .expect("boards")
        .count();
    assert_eq!(maps.matches("kind: ConfigMap").count(), boards + 1);
    assert_eq!(maps.matches("namespace: watch").count(), boards + 1);

    // Without a Prometheus there is nothing to show.
    let bare = shop("");
    bare.run(&tree)
        .ended(2)
        .says("no Prometheus of environment `local` is known");
    let maps = bare.run(&["dashboard", "render", "--format", "configmaps"]).ended(0);
    assert!(!maps.stdout.contains("grafana_datasource"));
    maps.says("the data sources are left out");
    for folder in ["a/b", "..", ""] {
        bare.run(&["dashboard", "render", "--folder", folder, "--out", "x"])
            .ended(2);
    }
}

#[test]
fn a_broken_board_is_found_with_its_place_and_mended_where_that_is_safe() {
    let sandbox = Sandbox::new();
    sandbox.write("boards/good.json", BASE);
    sandbox.run(&["dashboard", "check", "boards"]).ended(0);

    sandbox.write(
        "boards/bad.json",
        &BASE
            .replace("\"base\"", "\"bad\"")
            .replace("\"Base\"", "\"Bad\"")
            .replace("sum by (le) (rate(", "sum by (job) (rate("),
    );
    let line = BASE.lines().position(|line| line.contains("sum by (le)")).expect("it") + 1;
    let found = sandbox.run(&["dashboard", "check", "boards"]).ended(4);
    assert!(
        found.stdout.contains(&format!("--> boards/bad.json:{line}:")),
        "{}",
        found.stdout
    );
    assert!(
        found.stdout.ends_with("2 files: 1 error, 0 warnings, 0 notes\n"),
        "{}",
        found.stdout
    );
    let junit = sandbox
        .run(&["dashboard", "check", "boards", "--format", "junit"])
        .ended(4)
        .stdout;
    assert!(
        junit.contains("<testsuite") && junit.contains("boards/bad.json"),
        "{junit}"
    );
    let sarif = sandbox
        .run(&["dashboard", "check", "boards", "--format", "sarif"])
        .ended(4)
        .json();
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["region"]["startLine"], line);

    // A variable of several values that is compared with `=`.
    let wrong = BASE.replace("job=~\\\"$service\\\"", "job=\\\"$service\\\"");
    sandbox.write("board.json", &wrong);
    let dry = sandbox
        .run(&["dashboard", "check", "board.json", "--fix", "-n"])
        .says("2 places of board.json would be mended");
    assert_ne!(dry.code, 2);
    assert_eq!(fs::read_to_string(sandbox.path("board.json")).expect("it"), wrong);
    sandbox
        .run(&["dashboard", "check", "board.json", "--fix"])
        .ended(0)
        .says("mended 2 places of board.json");
    assert_eq!(fs::read_to_string(sandbox.path("board.json")).expect("it"), BASE);
}

#[test]
fn a_capture_tells_what_else_is_exported() {
    let sandbox = Sandbox::new();
    let expression = "sum by (http_route) (rate(http_server_request_duration_seconds_count{job=~\\\"$service\\\"}[$__rate_interval]))";
    assert!(BASE.contains(expression));
    sandbox.write(
        "board.json",
        &BASE.replace(expression, "sum(rate(shop_queue_depth[$__rate_interval]))"),
    );
    sandbox.write("shop.prom", "# TYPE shop_queue_depth gauge\nshop_queue_depth 3\n");
    let count = |words: &[&str]| {
        let found = sandbox
            .run(&[&["dashboard", "check", "board.json", "--json"], words].concat())
            .json();
        found["findings"].as_array().expect("findings").len()
    };
    assert!(count(&["--metrics", "shop.prom"]) > count(&[]));
    sandbox.write("no.prom", "what is this?\n");
    sandbox
        .run(&["dashboard", "check", "board.json", "--metrics", "no.prom"])
        .ended(2)
        .says("line 1");
}

#[test]
fn a_board_is_drawn_from_a_recording_without_a_catalogue() {
    let sandbox = Sandbox::new();
    sandbox.write("kinds.json", KINDS);
    sandbox.write("kinds.data.json", RECORDED);
    let draw = |words: &[&str]| {
        let words = [
            &["dashboard", "render", "kinds.json", "--fixture", "kinds.data.json"],
            words,
        ]
        .concat();
        // One of its questions was not recorded.
        sandbox.run(&words).ended(3)
    };
    let svg = draw(&["--format", "svg"]).says("Orders in eu, us: 1 question without an answer: no answer was recorded");
    assert!(svg.stdout.starts_with("<svg") && svg.stdout.contains("99.5%"));
    assert_eq!(draw(&["--format", "svg"]).stdout, svg.stdout);
    assert_ne!(draw(&["--format", "svg", "--theme", "dark"]).stdout, svg.stdout);
    assert!(draw(&["--format", "svg", "--unfold"]).stdout.contains("Folded away"));
    assert!(
        !draw(&["--format", "svg", "--var", "region=eu"])
            .stdout
            .contains("Errors in us")
    );

    let told = draw(&["--format", "png", "--out", "board.png", "--json"]).json();
    assert_eq!(told["files"][0], json!({ "path": "board.png", "change": "create" }));
    assert_eq!(told["pictures"][0]["unanswered"][0]["questions"], 1);
    assert!(fs::read(sandbox.path("board.png")).expect("it").starts_with(b"\x89PNG"));
    draw(&["--format", "html", "--out", "pages"]);
    let page = fs::read_to_string(sandbox.path("pages/dashboards.html")).expect("the page");
    assert!(page.contains("<svg") && !page.contains("<script"));
    let kept = draw(&["--format", "svg", "--out", "pictures"]);
    assert_eq!(kept.stdout, "create  pictures/kinds.svg\n");
    assert_eq!(
        fs::read_to_string(sandbox.path("pictures/kinds.svg")).expect("it"),
        svg.stdout
    );
    assert_eq!(draw(&["--format", "svg", "--out", "pictures", "--check"]).stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_is_drawn_and_what_it_said_is_kept() {
    let test = "a_real_prometheus_is_drawn_and_what_it_said_is_kept";
    let Some(prometheus) = Server::start(servers::Prometheus::default(), test).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let sandbox = shop(&format!("prometheus = \"http://{}\"", prometheus.address("http")));
        let panel = json!({
            "id": 1, "type": "stat", "title": "Answer", "gridPos": { "x": 0, "y": 0, "w": 8, "h": 4 },
            "targets": [{ "refId": "A", "expr": "vector(42)" }],
        });
        sandbox.write(
            "answer.json",
            &json!({ "title": "Live", "uid": "live", "panels": [panel] }).to_string(),
        );
        let draw =
            |words: &[&str]| sandbox.run(&[&["dashboard", "render", "answer.json", "--format", "svg"], words].concat());
        let between = ["--from", "now-30m", "--to", "-1m"];
        let live = draw(&[&between[..], &["--record", "answer.data.json"]].concat()).ended(0);
        assert!(live.stdout.contains(">42<"), "{}", live.stdout);
        let again = draw(&["--fixture", "answer.data.json"]).ended(0);
        assert_eq!(again.stdout, live.stdout);
        // Nobody has asked for what our board asks for.
        let ours = [
            "dashboard",
            "render",
            "requests",
            "--format",
            "svg",
            "--fixture",
            "answer.data.json",
        ];
        sandbox.run(&ours).ended(9).says("no answer was recorded");
        // Its Prometheus answers that there is nothing, which is an answer.
        let empty = sandbox
            .run(&[
                "dashboard",
                "render",
                "requests",
                "--format",
                "html",
                "--out",
                "now.html",
            ])
            .ended(0);
        assert_eq!(empty.stdout, "create  now.html\n");
        assert!(
            fs::read_to_string(sandbox.path("now.html"))
                .expect("it")
                .contains("no data")
        );
        draw(&["--from", "now", "--to", "now"])
            .ended(2)
            .says("`--from` has to be before `--to`");
    });
}

#[test]
fn a_prometheus_that_does_not_answer_is_no_board_without_data() {
    let sandbox = shop("prometheus = \"http://127.0.0.1:1\"");
    let svg = ["dashboard", "render", "requests", "--format", "svg", "--out", "a.svg"];
    sandbox.run(&svg).ended(7).says("http://127.0.0.1:1");
    assert!(!sandbox.path("a.svg").exists());
    shop("").run(&svg).ended(2).says("prometheus = ");
}

#[test]
fn what_cannot_be_read_is_told_with_what_to_do() {
    let sandbox = shop("");
    sandbox.write("no.json", "{\n  \"title\": oops\n}");
    sandbox.write("list.json", "[]");
    let place = sandbox.run(&["dashboard", "check", "no.json"]).ended(2);
    assert!(place.stdout.contains("--> no.json:2:12"), "{}", place.stdout);
    sandbox.run(&["dashboard", "check", "list.json"]).ended(2);
    sandbox
        .run(&["dashboard", "check", "absent.json"])
        .ended(2)
        .says("could not read `absent.json`");
    fs::create_dir(sandbox.path("empty")).expect("a folder");
    sandbox
        .run(&["dashboard", "check", "empty"])
        .ended(2)
        .says("there is no board in `empty`");
    fs::write(sandbox.path("bytes.json"), [0xff, 0xfe]).expect("a file");
    sandbox
        .run(&["dashboard", "check", "bytes.json"])
        .ended(2)
        .says("not text in UTF-8");
    sandbox.write("deep.json", &"[".repeat(200_000));
    sandbox.run(&["dashboard", "check", "deep.json"]).ended(2);
    for (words, told) in [
        (
            &["no.json", "--format", "svg", "--fixture", "list.json"][..],
            "`no.json` cannot be drawn",
        ),
        (
            &["list.json", "--format", "svg", "--fixture", "list.json"],
            "cannot be drawn",
        ),
        (&["--format", "json", "--theme", "dark"], "belong to pictures"),
        (&["--format", "svg", "--var", "a-b=1"], "no name of a variable"),
        (&["requests", "--format", "svg", "--from", "soon"], "expected a time"),
        (&["board.json"], "there is no board `board.json`"),
        (&["--check"], "--out"),
    ] {
        sandbox
            .run(&[&["dashboard", "render"], words].concat())
            .ended(2)
            .says(told);
    }
    // A title that would steer a terminal does not.
    sandbox.write(
        "evil.json",
        &BASE
            .replace("\"Duration\"", "\"\\u001b[2J\"")
            .replace("sum by (le)", "sum by (job)"),
    );
    let evil = sandbox.run(&["dashboard", "check", "evil.json"]).ended(4);
    assert!(!evil.stdout.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_are_pushed_after_a_plan_and_the_same_again_changes_nothing() {
    for api in [Api::Older, Api::Newer("v1")] {
        let server = grafana::Server::start(api, TOKEN).await;
        tokio::task::block_in_place(|| push(&server));
    }
}

fn push(server: &grafana::Server) {
    let known = format!(
        "grafana = {{ url = \"{}\", token = {{ file = \"token\" }} }}",
        server.address()
    );
    let sandbox = shop(&known);
    sandbox.secret("token", &format!("{TOKEN}\n"));
    let push = |words: &[&str]| sandbox.run(&[&["dashboard", "push", "--folder", "Shop"], words].concat());
    let counted = |ran: &Ran, action: &str| {
        let boards = ran.json()["boards"].as_array().expect("boards").clone();
        (
            boards.iter().filter(|board| board["action"] == action).count(),
            boards.len(),
        )
    };

    let dry = push(&["-n"]).ended(0).says("nothing was changed");
    assert!(dry.stdout.contains("create     folder Shop\n"), "{}", dry.stdout);
    assert!(dry.stdout.contains("opsctl-requests"));
    let first = push(&["--json"]).ended(0);
    let (created, all) = counted(&first, "create");
    assert_eq!(created, all);
    assert!(
        first.json()["boards"]
            .as_array()
            .expect("boards")
            .iter()
            .all(|board| board["written"] == true)
    );
    let again = push(&["--json"]).ended(0);
    assert_eq!(counted(&again, "unchanged"), (all, all));
    push(&[]).ended(0).says("there is nothing to change");

    // What differs is shown first, and to replace it somebody has to say yes.
    sandbox.write(
        "opsctl.toml",
        &format!("version = 1\n[env.local]\n{known}\nrunbooks = \"https://wiki.internal/runbooks\"\n[service.shop]\nobjectives = {{ availability = \"99%\" }}\n"),
    );
    let asked = push(&["requests"]).ended(5).says("`--yes` is required");
    assert!(asked.stdout.contains("+ links"), "{}", asked.stdout);
    push(&["requests", "--yes"]).ended(0).says("1 board written");
    push(&["requests"]).ended(0).says("there is nothing to change");

    // A newer one is left alone, and the others are written all the same.
    server.keep_in_second_model("opsctl-objectives", "v2");
    let refused = push(&["--yes", "--json"]).ended(5);
    assert_eq!(counted(&refused, "refused").0, 1);
    let boards = refused.json()["boards"].as_array().expect("boards").clone();
    for board in &boards {
        let is_refused = board["uid"] == "opsctl-objectives";
        assert_eq!(board["why"].is_string(), is_refused, "{board}");
        assert_eq!(board["written"] == true, board["action"] == "update", "{board}");
    }

    // A protected environment wants to know why.
    sandbox.write(
        "opsctl.toml",
        &format!("version = 1\n[env.local]\nprotected = true\n{known}\n[service.shop]\nobjectives = {{ availability = \"99%\" }}\n"),
    );
    push(&["requests", "--yes"]).ended(5).says("needs a reason");
    push(&["requests", "--yes", "--reason", "links are gone"]).ended(0);

    // The token stands nowhere, and is not told to another Grafana.
    sandbox.secret("token", "glsa_wrong_secret\n");
    let wrong = push(&["-vv"]).ended(5).says("refuses the token");
    assert!(!format!("{}{}", wrong.stdout, wrong.stderr).contains("secret"));
    sandbox.secret("token", &format!("{TOKEN}\n"));
    push(&["--url", server.address()]).ended(5).says("HTTP 401");
    push(&["--url", server.address(), "--token-file", "token", "-n"]).ended(5);
    push(&["--url", "http://127.0.0.1:1"]).ended(7);
    push(&["--url", "ftp://x"]).ended(2);
    shop("")
        .run(&["dashboard", "push"])
        .ended(2)
        .says("no Grafana of environment `local` is known");
}
