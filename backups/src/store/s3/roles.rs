//! What a writer and a pruner must be allowed in a bucket, as policies in Amazon's language. Pure.

use serde_json::{Value, json};

/// The policy of whoever backs up: it reads and adds, and takes away nothing but its locks.
pub fn writer_policy(bucket: &str, prefix: &str) -> Value {
    policy(bucket, prefix, "locks/*")
}

/// The policy of whoever prunes: it may also take away.
pub fn pruner_policy(bucket: &str, prefix: &str) -> Value {
    policy(bucket, prefix, "*")
}

fn policy(bucket: &str, prefix: &str, deleted: &str) -> Value {
    let place = format!("arn:aws:s3:::{bucket}");
    let prefix = prefix.trim_matches('/');
    let root = if prefix.is_empty() {
        place.clone()
    } else {
        format!("{place}/{prefix}")
    };
    let objects = |names: &str| format!("{root}/{names}");
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                // Without it the answer about an object that is not there is that one may not know.
                "Sid": "List",
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"],
                "Resource": [place],
            },
            {
                "Sid": "ReadAndAdd",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                "Resource": [objects("*")],
            },
            {
                "Sid": "Delete",
                "Effect": "Allow",
                "Action": ["s3:DeleteObject"],
                "Resource": [objects(deleted)],
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the policy lets one delete.
    fn deletable(policy: &Value) -> Vec<String> {
        let statements = policy["Statement"].as_array().unwrap();
        let deleting = statements.iter().filter(|statement| {
            let actions = statement["Action"].as_array().unwrap();
            actions.iter().any(|action| {
                let action = action.as_str().unwrap();
                action.contains('*') || action.contains("Delete") || action.contains("Bypass")
            })
        });
        let resources = deleting.flat_map(|statement| statement["Resource"].as_array().unwrap().clone());
        resources
            .map(|resource| resource.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_writer_deletes_nothing_but_locks() {
        assert_eq!(
            deletable(&writer_policy("bk", "/shop/")),
            ["arn:aws:s3:::bk/shop/locks/*"]
        );
        assert_eq!(deletable(&writer_policy("bk", "")), ["arn:aws:s3:::bk/locks/*"]);
        assert_eq!(deletable(&pruner_policy("bk", "shop")), ["arn:aws:s3:::bk/shop/*"]);
    }

    /// What lies beside restic's folders is no exception: whoever receives a log adds to it, and takes nothing away.
    #[test]
    fn a_writer_may_add_to_the_log_and_only_a_pruner_take_away() {
        let may = |policy: &Value, action: &str, object: &str| {
            let statements = policy["Statement"].as_array().unwrap().iter();
            let allows = |statement: &Value| {
                let has = |list: &Value| list.as_array().unwrap().iter().any(|one| one.as_str() == Some(action));
                let matches = |resource: &Value| {
                    let (before, after) = resource
                        .as_str()
                        .unwrap()
                        .split_once('*')
                        .unwrap_or((resource.as_str().unwrap(), ""));
                    object.starts_with(before) && object.ends_with(after)
                };
                has(&statement["Action"]) && statement["Resource"].as_array().unwrap().iter().any(matches)
            };
            statements.into_iter().any(allows)
        };
        let (writer, pruner) = (writer_policy("bk", "shop"), pruner_policy("bk", "shop"));
        for kind in ["wal", "pitr", "data", "snapshots", "proofs"] {
            let object = format!("arn:aws:s3:::bk/shop/{kind}/local.pg/7/0000000100000000000000B3");
            for policy in [&writer, &pruner] {
                assert!(
                    may(policy, "s3:PutObject", &object) && may(policy, "s3:GetObject", &object),
                    "{object}"
                );
            }
            assert!(!may(&writer, "s3:DeleteObject", &object), "{object}");
            assert!(may(&pruner, "s3:DeleteObject", &object), "{object}");
        }
    }

    #[test]
    fn nothing_is_allowed_outside_of_the_prefix() {
        for policy in [writer_policy("bk", "shop"), pruner_policy("bk", "shop")] {
            for statement in policy["Statement"].as_array().unwrap() {
                let resource = statement["Resource"][0].as_str().unwrap();
                assert!(
                    resource == "arn:aws:s3:::bk" || resource.starts_with("arn:aws:s3:::bk/shop/"),
                    "{resource}"
                );
            }
        }
    }
}
