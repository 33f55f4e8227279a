//! What of a command may be shown. Secrets belong into variables; this catches those that stand in arguments in spite of
//! everything. Rather too much is hidden than too little.

use std::path::Path;

use super::Variable;

const HIDDEN: &str = "…";

/// Parts of names whose values are secrets.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "credential",
    "auth",
];

/// Options of well-known programs that are secrets, though their names do not say so: the program's name begins with the
/// first; the option's value follows in the same word or in the next one.
const SECRET_OPTIONS: [(&str, &str); 6] = [
    ("mysql", "-p"),
    ("mariadb", "-p"),
    ("mongo", "-p"),
    ("redis-cli", "-a"),
    ("valkey-cli", "-a"),
    ("curl", "-u"),
];

/// The command as it may be shown.
pub(crate) fn command(program: &str, arguments: &[String], variables: &[Variable]) -> Vec<String> {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let short = SECRET_OPTIONS.iter().filter(|(known, _)| name.starts_with(known));
    let short: Vec<&str> = short.map(|(_, option)| *option).collect();
    let mut shown = vec![hide(program, variables)];
    let mut value_follows = false;
    for argument in arguments {
        if value_follows && !argument.starts_with('-') {
            shown.push(HIDDEN.to_owned());
            value_follows = false;
            continue;
        }
        let option = short
            .iter()
            .find(|option| argument.starts_with(**option) && !argument.starts_with("--"));
        // Of MySQL's programs `-p` alone asks for it; then nothing follows.
        let asks = name.starts_with('m') && !name.starts_with("mongo");
        value_follows = match option {
            Some(option) => argument == option && !asks,
            None => argument.starts_with('-') && !argument.contains('=') && is_secret(argument),
        };
        shown.push(match option {
            Some(option) if argument != option => format!("{option}{HIDDEN}"),
            _ => hide(argument, variables),
        });
    }
    shown
}

/// A text without the values of secret variables, without passwords in addresses, and without the values of names that
/// say that they are secret.
pub(crate) fn hide(text: &str, variables: &[Variable]) -> String {
    let mut text = text.to_owned();
    let secrets = variables.iter().filter(|variable| variable.is_secret);
    for secret in secrets
        .map(|variable| variable.value.trim())
        .filter(|secret| !secret.is_empty())
    {
        text = text.replace(secret, HIDDEN);
    }
    hide_assignments(&hide_passwords(&text))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host`.
fn hide_passwords(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after
            .find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace())
            .unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                let name = user.split(':').next().unwrap_or_default();
                shown.extend([name, ":", HIDDEN, "@", host]);
            }
            _ => shown.push_str(authority),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// `password=…`, alone, in a query, in a list.
fn hide_assignments(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || c == '&' || c == ';';
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('=') {
        let (before, after) = rest.split_at(at + 1);
        shown.push_str(before);
        let name = before
            .rsplit(|c: char| is_end(c) || c == '?' || c == ',')
            .next()
            .unwrap_or_default();
        rest = after;
        if is_secret(name) {
            let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let end = match quote {
                Some(quote) => after[1..].find(quote).map_or(after.len(), |end| end + 2),
                None => after.find(is_end).unwrap_or(after.len()),
            };
            shown.push_str(HIDDEN);
            rest = &after[end..];
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn shown(line: &[&str]) -> String {
        let arguments: Vec<String> = line[1..].iter().map(ToString::to_string).collect();
        let variables = [Variable {
            name: "KEY".to_owned(),
            value: Zeroizing::new("hunter2\n".to_owned()),
            is_secret: true,
        }];
        command(line[0], &arguments, &variables).join(" ")
    }

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        for (line, expected) in [
            (&["pg_dumpall", "-Fc", "-h", "db"][..], "pg_dumpall -Fc -h db"),
            (&["tool", "--password=x", "a"], "tool --password=… a"),
            (&["tool", "--Password", "x", "a"], "tool --Password … a"),
            (
                &["pg_dump", "--no-password", "--clean"],
                "pg_dump --no-password --clean",
            ),
            (&["tool", "DB_PASSWORD=x y"], "tool DB_PASSWORD=… y"),
            (
                &["tool", "host=db password='a b' user=u"],
                "tool host=db password=… user=u",
            ),
            (
                &["pg_dump", "postgres://u:p:w@db:5432/x?sslmode=off"],
                "pg_dump postgres://u:…@db:5432/x?sslmode=off",
            ),
            (&["tool", "https://db/?token=abc&x=1"], "tool https://db/?token=…&x=1"),
            (
                &["/usr/bin/mysqldump", "-psecret", "shop"],
                "/usr/bin/mysqldump -p… shop",
            ),
            (&["mysqldump", "-p", "shop"], "mysqldump -p shop"),
            (&["mongodump", "-p", "secret", "--archive"], "mongodump -p … --archive"),
            (&["redis-cli", "-a", "secret", "--rdb", "-"], "redis-cli -a … --rdb -"),
            (&["curl", "-uname:word", "x"], "curl -u… x"),
            (&["ls", "-p", "folder"], "ls -p folder"),
            (&["sh", "-c", "echo hunter2"], "sh -c echo …"),
            (&["tool", "--secret-access-key", "AK"], "tool --secret-access-key …"),
            (&["tool", "a@b", "x://y"], "tool a@b x://y"),
        ] {
            assert_eq!(shown(line), expected);
        }
    }
}
