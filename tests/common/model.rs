//! The model of tests/random_programs.rs: a thread with scopes as the documentation has it, without a kernel.
//!
//! It knows for each number the mask bit, what is queued and what is held, how often the handler behind has run, and for each scope who asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use eintr::{Delivery, Foreign, Reason, Status};

use crate::programs::{How, NUMBERS, Number};

/// A queue of foreign signals of one number. Standard ones have one place for the thread and one for the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) thread: u64,
    pub(crate) process: u64,
}

impl Queue {
    pub(crate) fn add(&mut self, number: Number, other: Queue) {
        let most = if number.is_standard() { 1 } else { u64::MAX };
        self.thread = (self.thread + other.thread).min(most);
        self.process = (self.process + other.process).min(most);
    }
}

#[derive(Debug, Default)]
pub(crate) struct ModelLane {
    pub(crate) scopes: usize,
    pub(crate) was_blocked: bool,
    /// The number is blocked in the thread's mask.
    pub(crate) blocked: bool,
    /// A signal of ours is on its way as far as its senders know: since when.
    in_flight: Option<Instant>,
    /// A signal of ours lies in the thread's queue, or a timer's may.
    ours_queued: bool,
    /// What was sent since the first scope may have been taken back with a timer's expiry, into which it had merged: nobody knows what flies.
    blurred: bool,
    /// Foreign ones in the kernel's queues.
    pub(crate) queued: Queue,
    /// Foreign ones kept for later, because the number had been blocked.
    held: Queue,
    /// Runs of the handler behind.
    pub(crate) runs: u64,
}

/// Whether the latest request wants no resend.
pub(crate) type Once = bool;

#[derive(Debug)]
pub(crate) struct ModelScope {
    pub(crate) id: usize,
    number: Number,
    policy: Foreign,
    by_remote: bool,
    by_signal: bool,
    seen: bool,
    /// Its requests are sent again, but for those that say otherwise.
    resends: bool,
    once: Once,
}

/// After this time a signal that has not landed may be taken to be lost, and another be sent.
const YOUNG: Duration = Duration::from_millis(50);

impl ModelScope {
    /// A timer may be armed for it. (One that was is not stopped by a later request for one signal.)
    fn may_be_resent(&self) -> bool {
        self.resends && self.is_asked() && !self.seen
    }
    /// One is.
    fn is_resent(&self) -> bool {
        self.may_be_resent() && !self.once
    }
    pub(crate) fn is_asked(&self) -> bool {
        self.by_remote || self.by_signal
    }
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.is_asked().then_some(if self.by_remote { Reason::Remote } else { Reason::Signal })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) lanes: BTreeMap<Number, ModelLane>,
    /// Outermost first.
    pub(crate) scopes: Vec<ModelScope>,
    /// Tickets not entered, and whether they were interrupted: by a request for one signal, or for as many as it takes.
    pub(crate) tickets: BTreeMap<usize, Option<Once>>,
}

impl Model {
    pub(crate) fn new() -> Model {
        let lane = |n: Number| ModelLane { blocked: n.begins_blocked(), ..ModelLane::default() };
        Model { lanes: NUMBERS.into_iter().map(|n| (n, lane(n))).collect(), ..Model::default() }
    }

    pub(crate) fn lane(&mut self, number: Number) -> &mut ModelLane {
        self.lanes.get_mut(&number).unwrap()
    }

    pub(crate) fn scope(&mut self, id: usize) -> Option<&mut ModelScope> {
        self.scopes.iter_mut().find(|s| s.id == id)
    }

    pub(crate) fn enter(&mut self, id: usize, number: Number, policy: Foreign, asked: Option<Once>, resends: bool) {
        let lane = self.lane(number);
        lane.scopes += 1;
        if lane.scopes == 1 {
            lane.was_blocked = lane.blocked;
            lane.blocked = false;
            lane.in_flight = None;
            lane.blurred = false;
            let pending = std::mem::take(&mut lane.queued);
            lane.held.add(number, pending); // only a blocked number has some
        }
        let (by_remote, once) = (asked.is_some(), asked == Some(true));
        self.scopes.push(ModelScope { id, number, policy, by_remote, by_signal: false, seen: false, resends, once });
    }

    pub(crate) fn leave(&mut self, id: usize) {
        let at = self.scopes.iter().position(|s| s.id == id).expect("it lives");
        let number = self.scopes.remove(at).number;
        let lane = self.lane(number);
        lane.scopes -= 1;
        if lane.scopes == 0 {
            lane.ours_queued = false;
            lane.in_flight = None;
            if lane.was_blocked {
                lane.blocked = true;
                let held = std::mem::take(&mut lane.held);
                lane.queued.add(number, held);
                lane.was_blocked = false;
            } else {
                lane.blocked = false;
                self.deliver(number);
            }
        }
    }

    /// What the kernel has queued for an open number arrives.
    pub(crate) fn deliver(&mut self, number: Number) {
        let lane = self.lane(number);
        assert!(!lane.blocked);
        lane.ours_queued = false;
        lane.in_flight = None;
        let queued = std::mem::take(&mut lane.queued);
        for _ in 0..queued.thread {
            self.arrive(number, Queue { thread: 1, process: 0 });
        }
        for _ in 0..queued.process {
            self.arrive(number, Queue { thread: 0, process: 1 });
        }
    }

    /// One foreign signal, with the number open. The innermost scope that does not chain decides what happens; besides, those around it that want
    /// to be interrupted are, out to the first that ignores.
    pub(crate) fn arrive(&mut self, number: Number, one: Queue) {
        let (mut decided, mut chains) = (false, true);
        for scope in self.scopes.iter_mut().rev().filter(|s| s.number == number && s.policy != Foreign::Chain) {
            let decides = !std::mem::replace(&mut decided, true);
            match scope.policy {
                Foreign::Ignore => {
                    chains &= !decides;
                    break;
                }
                Foreign::InterruptOnce if decides && scope.by_signal => {}
                policy => {
                    (scope.by_signal, scope.seen, scope.once) = (true, false, false);
                    chains &= !decides || policy == Foreign::InterruptAndChain;
                }
            }
        }
        let lane = self.lane(number);
        if !chains {
            return;
        }
        if lane.was_blocked {
            lane.held.add(number, one);
        } else {
            lane.runs += 1;
        }
    }

    /// Whether a timer may be armed.
    fn may_be_resent(&self, number: Number) -> bool {
        self.scopes.iter().any(|s| s.number == number && s.may_be_resent())
    }

    /// The numbers that a timer may be armed for, as a mask.
    pub(crate) fn resent(&self) -> u64 {
        let numbers = NUMBERS.into_iter().filter(|number| self.may_be_resent(*number));
        numbers.fold(0, |mask, number| mask | 1 << (number.raw() - 1))
    }

    /// Whether a plain call is to be ended by a resend, however many signals there were before it.
    pub(crate) fn ends_plain_calls(&self) -> bool {
        self.scopes.iter().any(|s| s.is_resent() && !self.lanes[&s.number].blocked)
    }

    /// The user blocks a number: what a timer sends stays in the queue.
    pub(crate) fn block(&mut self, number: Number) {
        let resent = self.may_be_resent(number);
        let lane = self.lane(number);
        lane.blocked = true;
        lane.ours_queued |= resent;
        lane.blurred |= resent;
    }

    /// One foreign signal is sent. Returns how, since the kernel merges a thread's standard signal into ours if that lies there.
    pub(crate) fn signal(&mut self, number: Number, how: How) -> How {
        let resent = self.may_be_resent(number);
        let lane = self.lane(number);
        let merges = number.is_standard() && (lane.ours_queued || resent);
        let how = if merges && matches!(how, How::Raise | How::PthreadKill) { How::Kill } else { how };
        let one = match how {
            How::Raise | How::PthreadKill => Queue { thread: 1, process: 0 },
            How::Kill | How::Sigqueue => Queue { thread: 0, process: 1 },
        };
        lane.queued.add(number, one);
        if !lane.blocked {
            self.deliver(number);
        }
        how
    }

    /// A request, and what was answered, if anybody knows. Returns what may be answered: `Held` for what is on its way, which a resend that is armed
    /// is for as long as nobody acknowledges the request (but it is not always armed: between an expiry and the next, say).
    pub(crate) fn interrupt(&mut self, id: usize, once: Once, answer: Option<Delivery>) -> Vec<Delivery> {
        if let Some(asked) = self.tickets.get_mut(&id) {
            *asked = Some(once && *asked != Some(false));
            return vec![Delivery::Held];
        }
        let Some(scope) = self.scope(id) else { return vec![Delivery::Gone] };
        let insisted = scope.is_asked() && !scope.seen && !scope.once;
        let repeats = scope.is_resent() && scope.by_remote && !once;
        let (number, resends) = (scope.number, scope.resends);
        (scope.by_remote, scope.seen, scope.once) = (true, false, once && !insisted);
        let lane = self.lane(number);
        let allowed = match lane.in_flight {
            Some(since) if since.elapsed() < YOUNG && !lane.blurred => vec![Delivery::Held],
            Some(_) => vec![Delivery::Held, Delivery::Sent],
            None if repeats || lane.blurred => vec![Delivery::Held, Delivery::Sent],
            None => vec![Delivery::Sent],
        };
        let sent = answer.map_or(allowed.contains(&Delivery::Sent), |answer| answer == Delivery::Sent);
        if lane.blocked {
            if sent {
                lane.in_flight = Some(Instant::now());
            }
            lane.ours_queued = true;
            lane.blurred |= resends && !once;
        } else {
            lane.in_flight = None;
        }
        allowed
    }

    /// Why the thread is interrupted.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.scopes.iter().find_map(ModelScope::reason)
    }

    pub(crate) fn acknowledge(&mut self) {
        self.scopes.iter_mut().filter(|s| s.is_asked()).for_each(|s| s.seen = true);
        self.lanes.values_mut().for_each(|lane| lane.in_flight = None);
    }

    pub(crate) fn clear(&mut self, id: usize) -> Option<Reason> {
        let scope = self.scope(id)?;
        let reason = scope.reason();
        (scope.by_remote, scope.by_signal, scope.seen) = (false, false, false);
        let number = scope.number;
        self.lane(number).in_flight = None;
        reason
    }

    pub(crate) fn wait(&self, id: usize) -> Status {
        let scope = self.scopes.iter().find(|s| s.id == id);
        match (self.tickets.get(&id), scope) {
            (Some(Some(_)), _) => Status::StillRunning,
            (Some(None), _) => Status::Acknowledged,
            (None, Some(scope)) if scope.is_asked() && !scope.seen => Status::StillRunning,
            (None, Some(_)) => Status::Acknowledged,
            (None, None) => Status::Closed,
        }
    }
}
