//! Work in the background.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{runtime::Handle, sync::oneshot};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts work in the background. What is given before there is a runtime waits for it; where a configuration is only
/// checked, none comes.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Stage>>);

enum Stage {
    Waiting(Vec<Work>),
    On(Handle),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Waiting(Vec::new())
    }
}

impl Tasks {
    /// Starts what waits, and from now on everything at once, on this runtime.
    pub fn start(&self, runtime: &Handle) {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Stage::Waiting(works) = std::mem::replace(&mut *stage, Stage::On(runtime.clone())) {
            for work in works {
                runtime.spawn(work);
            }
        }
    }

    /// Starts `work`; it ends when the returned [`Task`] is dropped. Keep it beside the state that the work is for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        let (kept, dropped) = oneshot::channel::<()>();
        let bounded = async move {
            tokio::select! {
                () = work => {}
                _ = dropped => {}
            }
        };
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::On(runtime) => drop(runtime.spawn(bounded)),
            Stage::Waiting(works) => works.push(Box::pin(bounded)),
        }
        Task { _kept: kept }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

/// Work in the background; ends when dropped.
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct Task {
    _kept: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_waits_for_a_runtime_and_ends_with_its_task() {
        let tasks = Tasks::default();
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let early = {
            let tell = tell.clone();
            tasks.spawn(async move { tell.send("early").await.unwrap() })
        };
        assert!(told.try_recv().is_err());
        tasks.start(&Handle::current());
        assert_eq!(told.recv().await, Some("early"));
        let held = tasks.spawn(async move {
            let _held = tell;
            std::future::pending::<()>().await;
        });
        drop((early, held));
        assert_eq!(told.recv().await, None, "the work and what it held are gone");
    }
}
