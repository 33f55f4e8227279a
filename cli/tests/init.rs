//! `init`: what it writes for a service in another language, and what it never overwrites.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sandbox::Sandbox;

#[test]
fn a_python_service_without_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&[
            "init",
            "--service",
            "shop",
            "--command",
            "python3 app.py --name 'my shop'",
            "--health",
            "/healthz",
            "--port",
            "8080",
            "--sqlite",
            "shop.db",
        ])
        .ended(0);
    insta::assert_snapshot!(fs::read_to_string(sandbox.path("opsctl.toml")).expect("the file"));
    sandbox.run(&["config", "check"]).ended(0);
    let password = fs::metadata(sandbox.path(".opsctl/password")).expect("the password file");
    assert_eq!(password.permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        fs::metadata(sandbox.path(".opsctl"))
            .expect("the folder")
            .permissions()
            .mode()
            & 0o7777,
        0o700
    );
}

#[test]
fn nothing_is_overwritten_and_twice_is_once() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["init", "--service", "shop", "--command", "./shop"])
        .ended(0);
    let password = fs::read_to_string(sandbox.path(".opsctl/password")).expect("the password file");
    sandbox
        .run(&["init", "--service", "other", "--command", "./other"])
        .ended(5)
        .says("exists already");
    sandbox.run(&["init"]).ended(0).says("nothing to do");
    assert_eq!(
        fs::read_to_string(sandbox.path(".opsctl/password")).expect("the password file"),
        password
    );
}

#[test]
fn without_a_terminal_it_says_which_flag_is_missing() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).ended(2).says("`--service` is missing");
    assert!(!sandbox.path("opsctl.toml").exists());
    sandbox
        .run(&["init", "--service", "shop", "--command", "sh -c 'x"])
        .ended(2)
        .says("a quote is not closed");
    assert!(!sandbox.path("opsctl.toml").exists());
}

#[test]
fn a_lost_password_is_never_replaced() {
    let sandbox = Sandbox::with_stores();
    sandbox.run(&["backup"]).ended(0);
    fs::remove_file(sandbox.path("password")).expect("our own file");
    sandbox
        .run(&["init"])
        .ended(5)
        .says("has data and its password is missing");
    assert!(!sandbox.path("password").exists());
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o777)).expect("our own folder");
    sandbox
        .run(&["init", "--service", "shop", "--command", "./shop"])
        .ended(5);
    assert!(!sandbox.path("opsctl.toml").exists());
}
