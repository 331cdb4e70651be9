//! What a scope and its Remotes share: the gate and where its signals go.
//!
//! # Invariants
//! 1. A node is reached only with the generation that its gate had when the reader's right began (a [`Link`]); the gate's answer to that
//!    generation says whether the rest of the node still speaks of the same scope.
//! 2. `record`, `sig`, `policy`, `order` and the pauses are written before the gate is opened, and not again in its generation.
//! 3. `next` and `shields` are changed only by the thread that the node is listed on; `next` in single stores.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, SeqCst};
use crate::engine::gate::Gate;
use crate::engine::pool::{Place, Pool};
use crate::engine::record::Record;
use crate::kernel::pid;
use crate::policy::Foreign;
use crate::resend::Pauses;

static NODES: Pool<Node> = Pool::new();

/// See the module.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) gate: Gate,
    /// The process in which the scope can be interrupted.
    pub(crate) pid: AtomicU32,
    record: AtomicU32,
    sig: AtomicU32,
    policy: AtomicU8,
    /// Pauses of the resend, in nanoseconds.
    first: AtomicU64,
    ceiling: AtomicU64,
    /// What scopes further in on the same lane leave of its policy.
    shadow: AtomicU8,
    /// Index plus one of the next scope of the thread, further in; 0 for the last.
    pub(crate) next: AtomicU32,
    /// Order of entering, among the scopes, deadlines and shields of the thread.
    pub(crate) order: AtomicU64,
    /// Shields that are up over it. While there is one the gate is held.
    pub(crate) shields: AtomicU32,
}

/// What scopes further in on the same lane leave of a scope's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shadow {
    /// All of it.
    None,
    /// It is interrupted, but what else happens is decided further in.
    Decided,
    /// Nothing.
    Ignored,
}

/// A node and the generation it is meant in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    place: &'static Place<Node>,
    generation: u32,
}

impl Node {
    fn new() -> Node {
        Node {
            gate: Gate::new(),
            pid: AtomicU32::new(0),
            record: AtomicU32::new(0),
            sig: AtomicU32::new(0),
            policy: AtomicU8::new(0),
            first: AtomicU64::new(0),
            ceiling: AtomicU64::new(0),
            shadow: AtomicU8::new(0),
            next: AtomicU32::new(0),
            order: AtomicU64::new(0),
            shields: AtomicU32::new(0),
        }
    }

    /// The node whose index plus one is this.
    pub(crate) fn by_plus_one(plus_one: u32) -> Option<&'static Place<Node>> {
        NODES.get(plus_one.checked_sub(1)?)
    }

    /// The signal number.
    pub(crate) fn sig(&self) -> i32 {
        self.sig.load(SeqCst) as i32
    }

    /// The thread's record.
    pub(crate) fn record(&self) -> Option<&'static Record> {
        Record::by_index(self.record.load(SeqCst))
    }

    pub(crate) fn policy(&self) -> Foreign {
        Foreign::from_bits(self.policy.load(SeqCst))
    }

    pub(crate) fn pauses(&self) -> Pauses {
        Pauses { first: self.first.load(SeqCst), ceiling: self.ceiling.load(SeqCst) }
    }

    pub(crate) fn is_shielded(&self) -> bool {
        self.shields.load(SeqCst) != 0
    }

    pub(crate) fn shadow(&self) -> Shadow {
        match self.shadow.load(SeqCst) {
            0 => Shadow::None,
            1 => Shadow::Decided,
            _ => Shadow::Ignored,
        }
    }

    pub(crate) fn set_shadow(&self, shadow: Shadow) {
        self.shadow.store(shadow as u8, SeqCst);
    }
}

impl Link {
    /// A node of one's own, its gate held (a Ticket).
    pub(crate) fn make() -> Link {
        let place = NODES.take(Node::new);
        let node = &place.value;
        node.pid.store(pid::current(), SeqCst);
        node.set_shadow(Shadow::None);
        node.next.store(0, SeqCst);
        node.shields.store(0, SeqCst);
        Link { place, generation: node.gate.renew() }
    }

    /// Says where its signals go; before the gate is opened (invariant 2).
    pub(crate) fn bind(self, record: &Record, sig: i32, policy: Foreign, pauses: Pauses) {
        self.node().order.store(record.next_order(), SeqCst);
        self.node().first.store(pauses.first, SeqCst);
        self.node().ceiling.store(pauses.ceiling, SeqCst);
        self.node().record.store(record.index(), SeqCst);
        self.node().sig.store(sig as u32, SeqCst);
        self.node().policy.store(policy.bits(), SeqCst);
    }

    /// The scope that a node of the calling thread's list stands for now.
    pub(crate) fn of(place: &'static Place<Node>) -> Link {
        Link { place, generation: place.value.gate.generation() }
    }

    pub(crate) fn node(self) -> &'static Node {
        &self.place.value
    }

    pub(crate) const fn plus_one(self) -> u32 {
        self.place.index() + 1
    }

    pub(crate) const fn generation(self) -> u32 {
        self.generation
    }

    /// As one number that fits an atomic; never 0.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.plus_one())
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Link> {
        let place = Node::by_plus_one(bits as u32)?;
        Some(Link { place, generation: (bits >> 32) as u32 })
    }

    /// Whether the scope, or the ticket, has not ended.
    pub(crate) fn is_open(self) -> bool {
        self.node().gate.is_open(self.generation)
    }

    /// Gives the node back after its gate was closed.
    pub(crate) fn recycle(self) {
        NODES.give(self.place);
    }
}
