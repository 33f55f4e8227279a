//! What `backup --continuous` and `backup --follow` share: they stay until Ctrl-C, for the store that is named or for
//! every one of which that is wanted, in one process a store. What they do for it is theirs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;

use backups::Repository as Engine;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Args;
use crate::config::{Config, Datastore};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::repository::{self, IfEmpty};

/// The store that is named, or all of which it is `wanted`. Those of which it `can` not be are refused by `refuse` if they
/// are named; without any there is `nothing` to do.
pub(super) fn choose<'a>(
    args: &Args,
    stores: &[&'a Datastore],
    refuse: impl Fn(&Datastore) -> Result<(), Failure>,
    wanted: impl Fn(&Datastore) -> bool,
    nothing: Failure,
) -> Result<Vec<&'a Datastore>, Failure> {
    let named = stores.iter().find(|store| args.target.as_ref() == Some(&store.name));
    if let Some(store) = named {
        refuse(store)?;
        return Ok(vec![*store]);
    }
    let chosen: Vec<&Datastore> = stores.iter().copied().filter(|store| wanted(store)).collect();
    if chosen.is_empty() { Err(nothing) } else { Ok(chosen) }
}

/// Does `work` for each store side by side until all of it has ended: by Ctrl-C, or each by its own failure, which is told
/// when it happens and ends no other's. `done` is what happens to a store, such as `shipped`.
pub(super) fn stay(
    args: &Args,
    context: &Context,
    config: &Config,
    stores: &[&Datastore],
    done: &str,
    work: impl AsyncFn(&Engine, &Datastore, &CancellationToken) -> Result<(), Failure>,
) -> Outcome {
    let declared = repository::declared(config, None)?;
    let locks: Vec<File> = stores
        .iter()
        .map(|store| lock(context, config, store, done))
        .collect::<Result<_, _>>()?;
    repository::cancellable(context, async |cancel| {
        if args.until_stdin_ends {
            end_with_stdin(cancel.clone());
        }
        let engine = repository::open(context, declared, IfEmpty::Make).await?;
        let alone = stores.len() == 1;
        let working = stores
            .iter()
            .map(async |store| match work(&engine, store, &cancel).await {
                Err(failure) if !alone => Ok(context.out.failure(&failure)),
                ended => ended.map(|()| Exit::Done),
            });
        let ended: Result<Vec<Exit>, Failure> = Box::pin(join_all(working)).await.into_iter().collect();
        drop(locks);
        Ok(ended?
            .into_iter()
            .find(|exit| *exit != Exit::Done)
            .unwrap_or(Exit::Done))
    })
}

/// Cancels when whoever holds the other end of stdin is gone. The thread ends with the process: nothing can wake it before.
fn end_with_stdin(cancel: CancellationToken) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        cancel.cancel();
    });
}

/// Two that do it for one store would be no harm, and no use.
fn lock(context: &Context, config: &Config, store: &Datastore, done: &str) -> Result<File, Failure> {
    let path = config.state().join(format!("shipping-{}.lock", store.name));
    let failed = |error| Failure::io(format!("could not make `{}`", context.shown(&path)), &error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(config.state())
        .map_err(failed)?;
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Locked,
            "locked",
            format!("`{}` is {done} by another process", store.name),
        )
        .help("one is enough; end the other one first to do it from here")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
