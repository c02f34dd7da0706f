//! The socket addresses behind a backend's host names, each with its own balance and health.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::race::STAGGER;
use super::{Pool, Target, Targets};
use crate::address::Address;
use crate::backend::dial::{Place, look_up};
use crate::deadline::Deadline;

/// The known socket addresses of a name.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<Targets>);

impl Found {
    pub(super) fn get(&self) -> Targets {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the socket addresses of the name. Those that are known already keep their state.
    fn set(&self, name: &Target, places: &[Place]) -> Targets {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |place: &Place| {
            let same = known.iter().find(|it| it.place.as_ref() == Some(place));
            same.map_or_else(|| name.at(place.clone()), Arc::clone)
        };
        let next: Vec<Arc<Target>> = places.iter().map(of).collect();
        *known = next.into();
        name.order.forget_others(places);
        Arc::clone(&known)
    }
}

/// Who looks up names.
#[derive(Debug, Default)]
pub(super) enum Resolver {
    /// The operating system: its hosts file and name servers.
    #[default]
    System,
    #[cfg(test)]
    Fixed(Vec<Place>),
}

impl Resolver {
    async fn look_up(&self, name: &Address) -> io::Result<Vec<Place>> {
        match self {
            Self::System => look_up(name).await,
            #[cfg(test)]
            Self::Fixed(places) => Ok(places.clone()),
        }
    }
}

impl Pool {
    /// Like [`Self::targets`], but each name is replaced by its socket addresses.
    pub(super) async fn found(&self, deadline: Deadline) -> Targets {
        let targets = self.targets();
        if targets.iter().all(|target| target.place.is_some()) {
            return targets;
        }
        let mut all = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            match target.place {
                Some(_) => all.push(Arc::clone(target)),
                None if !target.is_in_service() => {}
                None => {
                    let rest = (targets.len() - index) as u32;
                    let share = deadline.remaining().map(|left| left / rest);
                    all.extend(self.look_up(target, share).await.iter().map(Arc::clone));
                }
            }
        }
        all.into()
    }

    pub(super) async fn look_up(&self, name: &Arc<Target>, share: Option<Duration>) -> Targets {
        let known = name.found.get();
        // While a known address may answer, a slow name server is not waited for.
        let share = match known.iter().any(|target| !target.is_down()) {
            true => Some(share.map_or(STAGGER, |share| share.min(STAGGER))),
            false => share,
        };
        let error = match Deadline::after(share)
            .bound(self.resolver.look_up(&name.address))
            .await
        {
            Ok(Ok(mut places)) => {
                let mut seen = Vec::new();
                places.retain(|place| {
                    let is_new = !seen.contains(place);
                    seen.push(place.clone());
                    is_new
                });
                return name.found.set(name, &places);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the name server did not answer in time".to_owned(),
        };
        if known.is_empty() {
            name.failed(&self.judge, &format!("cannot look up the name: {error}"));
        }
        known
    }

    /// Health checks have looked at all socket addresses of a name: it is up while one of them is.
    pub(super) fn judge_name(&self, name: &Target, found: &[Arc<Target>]) {
        let is_up = |it: &&Arc<Target>| it.is_well() || it.state().is_up();
        match (found.iter().find(is_up), found.first()) {
            (Some(_), _) => {
                name.follow(&self.judge, None);
                self.recovered.notify_waiters();
            }
            (None, Some(first)) => name.follow(&self.judge, first.last_error()),
            // The look-up has failed, and said so.
            (None, None) => {}
        }
    }

    /// A round failed: no address of any name has answered, so the names count as down too.
    pub(super) fn missed(&self) {
        for name in self.targets().iter().filter(|it| it.place.is_none()) {
            let found = name.found.get();
            if let Some(error) = found.iter().find_map(|target| target.last_error()) {
                name.failed(&self.judge, &error);
            }
        }
    }

    /// An address has answered. If it belongs to a name, the name has answered too.
    pub(super) fn answered(&self, target: &Arc<Target>) {
        self.note_answer(target);
        if target.is_of_name {
            let targets = self.targets();
            let names = targets.iter().filter(|it| it.place.is_none());
            names
                .filter(|name| name.address == target.address)
                .for_each(|name| self.note_answer(name));
        }
    }
}
