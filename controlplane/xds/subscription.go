package xds

import (
	"math"
	"slices"
	"time"
)

// never is later than every revision.
const never = math.MaxUint64

// Refusal is a resource that a client has NACKed. The client goes on with the last
// version it took, and is not bothered again until there is another one.
type Refusal struct {
	Key     Key
	Version string
	Error   string
	Time    time.Time
	// Changed are the objects that the client's last good version was not made of, or not
	// in this generation: one of them is to blame. Empty is unknown.
	Changed []Origin

	since uint64 // what need.since was
}

// changed lists the origins of a resource that another version of it does not have. What a
// client kept from an earlier stream has none that we know of.
func changed(r, held *Resource) []Origin {
	if held == nil || len(held.Origins) == 0 {
		return nil
	}
	var out []Origin
	for _, o := range r.Origins {
		if !slices.Contains(held.Origins, o) {
			out = append(out, o)
		}
	}
	return out
}

// subscription is a stream's state for one type.
type subscription struct {
	typ      string
	wildcard bool
	named    map[string]struct{}
	held     map[string]*Resource // what the client has; a stub when from an earlier stream
	refused  map[string]Refusal
	pending  map[string]*need // names to compare, and perhaps to send
	flight   *flight          // the one response that waits for its ACK
	groups   int              // last number given out, see need.group
	lastAck  time.Time
}

// need is the reason to look at a name.
type need struct {
	since  uint64    // the client may lack something from this revision on; 0: from its subscription on
	at     uint64    // newest change seen, for removals and changes of variant
	force  bool      // send even what the client has
	answer bool      // the client asked: answer even if there is nothing
	group  int       // isolates the bad one after a NACK that named nobody: only one group per response
	free   time.Time // since when a removal could have been sent
	early  time.Time // since when a cluster waits for a listener that it leads to
}

// flight is a response that was sent and not answered.
type flight struct {
	nonce   string
	adds    []item
	removes []item // resource is nil; includes answers that a name does not exist
}

// item is one name of a response.
type item struct {
	name     string
	resource *Resource
	revision uint64 // of the content
	need     *need
}

// newSubscription begins a subscription of a client that says it holds so many names.
func newSubscription(typ string, holds int) *subscription {
	return &subscription{
		typ: typ, named: make(map[string]struct{}), held: make(map[string]*Resource, holds),
		refused: make(map[string]Refusal), pending: make(map[string]*need),
	}
}

// current tells whether the client is known to hold a resource as it is now.
func (sub *subscription) current(name string, e *entry) bool {
	return e != nil && sub.held[name] == e.resource
}

// mark notes that a name has to be compared.
func (sub *subscription) mark(name string, since, at uint64) *need {
	n := sub.pending[name]
	if n == nil {
		n = &need{since: since, at: at}
		sub.pending[name] = n
	}
	n.since, n.at = min(n.since, since), max(n.at, at)
	return n
}

// drop forgets a name that the client no longer cares for.
func (sub *subscription) drop(name string) {
	delete(sub.held, name)
	delete(sub.refused, name)
	delete(sub.pending, name)
}

// dropUntracked forgets what the client no longer subscribes to.
func (sub *subscription) dropUntracked() {
	for name := range sub.held {
		if !sub.tracks(name) {
			sub.drop(name)
		}
	}
	for name := range sub.pending {
		if !sub.tracks(name) {
			sub.drop(name)
		}
	}
}

// tracks tells whether a change of the name may matter to the client.
func (sub *subscription) tracks(name string) bool {
	if sub.wildcard {
		return true
	}
	_, named := sub.named[name]
	return named
}

// knows tells whether the client has something of a name, waits for it or has asked for it:
// then its change matters whether or not a wildcard covers it.
func (sub *subscription) knows(name string) bool {
	_, named := sub.named[name]
	_, refused := sub.refused[name]
	return named || refused || sub.held[name] != nil || sub.pending[name] != nil ||
		sub.flight != nil && has(sub.flight.adds, name)
}

// loses tells whether the client is about to remove a name.
func (sub *subscription) loses(name string) bool {
	return sub.flight != nil && has(sub.flight.removes, name)
}

func has(items []item, name string) bool {
	return slices.ContainsFunc(items, func(it item) bool { return it.name == name })
}

// oldest is the earliest revision that the response in flight is needed for.
func (f *flight) oldest() (adds, removes uint64) {
	adds, removes = never, never
	if f == nil {
		return
	}
	for _, it := range f.adds {
		adds = min(adds, it.need.since)
	}
	for _, it := range f.removes {
		removes = min(removes, it.need.since)
	}
	return
}
