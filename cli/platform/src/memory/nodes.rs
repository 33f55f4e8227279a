//! Nodes of the twin in memory: names, and on which of them each instance is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::time::Instant;

use super::{Inner, MemoryPlatform, Slot};
use crate::{Field, Keeper, Node, PlatformError, Result, Tenant};

/// The nodes, and what binds instances to them.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Whether each takes nothing new.
    pub(super) closed: BTreeMap<String, bool>,
    /// Ready instances that no eviction may go below, by service.
    budgets: BTreeMap<String, usize>,
    /// Services whose instances come back to a node that takes nothing new.
    tolerant: BTreeSet<String>,
}

impl MemoryPlatform {
    /// Puts the instances that there are on nodes, in turn.
    #[must_use]
    pub fn with_nodes(self, names: &[&str]) -> Self {
        {
            let mut inner = self.lock();
            inner.nodes.closed = names.iter().map(|name| ((*name).to_owned(), false)).collect();
            for service in inner.services.values_mut() {
                for (slot, name) in service.instances.iter_mut().zip(names.iter().cycle()) {
                    slot.node = Some((*name).to_owned());
                }
            }
        }
        self
    }

    /// Has a service's instances come back to a node that takes nothing new, as those do that tolerate it.
    #[must_use]
    pub fn with_tolerant(self, service: &str) -> Self {
        self.lock().nodes.tolerant.insert(service.to_owned());
        self
    }

    /// Has evictions refused that would leave fewer ready instances of a service.
    #[must_use]
    pub fn with_budget(self, service: &str, ready: usize) -> Self {
        self.lock().nodes.budgets.insert(service.to_owned(), ready);
        self
    }
}

impl Inner {
    /// Whether a node takes nothing new.
    pub(super) fn node(&self, name: &str, field: &Field) -> Result<Option<Value>> {
        let closed = self.nodes.closed.get(name);
        let closed = closed.ok_or_else(|| PlatformError::UnknownField { field: field.clone() })?;
        Ok(closed.then_some(Value::Bool(true)))
    }

    /// The first node that takes something new.
    pub(super) fn open_node(&self) -> Option<String> {
        let mut nodes = self.nodes.closed.iter();
        nodes.find(|(_, closed)| !**closed).map(|(name, _)| name.clone())
    }

    pub(super) fn list_nodes(&self) -> Vec<Node> {
        let nodes = self.nodes.closed.iter();
        nodes
            .map(|(name, unschedulable)| Node {
                name: name.clone(),
                ready: true,
                unschedulable: *unschedulable,
            })
            .collect()
    }

    pub(super) fn tenants(&self, node: &str) -> Vec<Tenant> {
        let slots = self.services.values().flat_map(|service| &service.instances);
        slots
            .filter(|slot| slot.node.as_deref() == Some(node))
            .map(|slot| Tenant {
                namespace: String::new(),
                name: slot.instance.id.clone(),
                uid: slot.instance.uid.clone(),
                service: Some(slot.instance.service.clone()),
                kept_by: Keeper::Controller,
                local_data: false,
            })
            .collect()
    }

    /// Kills it, and has it come back on a node that takes something new.
    pub(super) fn evict(&mut self, tenant: &Tenant, now: Instant) -> Result<()> {
        let (pid, name) = (self.next_pid(), tenant.service.clone().unwrap_or_default());
        let least = self.nodes.budgets.get(&name).copied().unwrap_or(0);
        let (open, tolerant) = (self.open_node(), self.nodes.tolerant.contains(&name));
        let service = self.service(&name)?;
        let ready = |slot: &Slot| slot.ready_at.is_some_and(|at| at <= now);
        let left = service.instances.iter().filter(|slot| ready(slot)).count();
        let mut slots = service.instances.iter_mut();
        let Some(slot) = slots.find(|slot| slot.instance.uid == tenant.uid) else {
            return Err(PlatformError::Gone {
                instance: tenant.name.clone(),
                uid: tenant.uid.clone(),
            });
        };
        if left <= least {
            return Err(PlatformError::Refused {
                what: format!("the eviction of `{}`", tenant.name),
                why: format!("{least} must stay ready"),
            });
        }
        if !tolerant {
            slot.node = open;
        }
        let id = slot.instance.id.clone();
        service.kill(&id, now, pid);
        Ok(())
    }
}
