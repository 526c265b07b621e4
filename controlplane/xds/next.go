package xds

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxResponseBytes bounds one response; what is more goes in the next, after the ACK.
// gRPC clients refuse messages above 4 MiB by default. One larger resource goes alone.
const maxResponseBytes = 2 << 20

// worklist is what one type has to do.
type worklist struct {
	sub     *subscription
	adds    []item
	removes []item
	absent  []item // asked for, does not exist; the client has nothing

	// The earliest revisions that additions and removals are outstanding for, those in
	// flight included; owed leaves out removals that wait on purpose.
	oldestAdd, oldestRemove, owed uint64
}

// Next returns the responses to send now, at most one per type. They are newest state:
// what changed several times meanwhile is sent once.
//
// A listener or route is held back while an earlier type (addOrder) has something
// outstanding that is as old as its content or older; a newer change of an earlier type
// cannot be what it depends on, so steady changes starve nobody. Endpoints wait for
// nothing: they are sent after each response that holds their cluster (see follow). A
// removal waits for every addition as old as itself, and for the removals before it
// (removeOrder).
func (s *Stream) Next(now time.Time) []*Response {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	s.ingest()
	s.wake = time.Time{}

	work := make(map[string]*worklist, len(s.types))
	for typ, sub := range s.types {
		work[typ] = s.compare(sub, now)
	}
	s.holdAdditions(work, now)
	s.holdRemovals(work, now)

	var out []*Response
	settled := s.cursor
	for _, w := range inOrder(work) {
		settled = min(settled, before(w.oldestAdd), before(w.owed))
		if r := s.send(w); r != nil {
			out = append(out, r)
			if w.sub.typ == ListenerType {
				s.expect(w.sub.flight.adds, now)
			}
			if w.sub.typ == ClusterType && len(r.Resources) > 0 {
				s.follow(w.sub.flight.adds, now)
				if eds := work[EndpointType]; eds != nil {
					*eds = *s.compare(eds.sub, now)
					eds.removes = nil // next time
				}
			}
		}
	}
	if len(s.types) > 0 {
		settled = min(settled, before(s.oldestWarmUp(now, RouteType)))
		s.settled = max(s.settled, settled)
	}
	return out
}

// before is the revision that comes before, for a revision that something is lacking of.
func before(revision uint64) uint64 { return max(revision, 1) - 1 }

// inOrder returns the ordered types first to last, then the others by name.
func inOrder(work map[string]*worklist) []*worklist {
	out := make([]*worklist, 0, len(work))
	for _, typ := range addOrder {
		if w := work[typ]; w != nil {
			out = append(out, w)
		}
	}
	rest := len(out)
	for typ, w := range work {
		if !ordered(typ) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out[rest:], func(a, b *worklist) int { return strings.Compare(a.sub.typ, b.sub.typ) })
	return out
}

// compare sorts the pending names of a type into what is to be done, and drops those
// where nothing is.
func (s *Stream) compare(sub *subscription, now time.Time) *worklist {
	w := &worklist{sub: sub}
	w.oldestAdd, w.oldestRemove = sub.flight.oldest()
	w.owed = w.oldestRemove
	for name, n := range sub.pending {
		it := item{name: name, need: n, revision: n.at}
		held := sub.held[name]
		e := s.want(sub, name)
		switch {
		case e != nil && sub.typ == RouteType && !s.sees(e):
			// The listener with these routes is about to go, and their clusters with it. Until
			// then it keeps the routes that it has: newer ones may need other clusters.
			if sub.flight == nil {
				delete(sub.pending, name)
			}
		case e != nil && held != nil && held.Version == e.resource.Version && !n.force && sub.flight == nil:
			delete(sub.refused, name) // what was refused has been taken back
			delete(sub.pending, name)
		case e != nil && sub.refused[name].Version == e.resource.Version && !n.force && sub.flight == nil:
			delete(sub.pending, name)
		case e != nil && s.tooEarly(sub, e.resource, n, now):
			w.owed = min(w.owed, n.since)
		case e != nil:
			it.resource, it.revision = e.resource, max(e.revision, n.at)
			w.adds = append(w.adds, it)
			w.oldestAdd = min(w.oldestAdd, n.since)
		case n.force && sub.typ == EndpointType:
			// Gone while its cluster warms. The client must hear it now: it withholds an
			// ACK until then, which this would wait for as a removal.
			w.absent = append(w.absent, it)
		case held != nil:
			w.removes = append(w.removes, it)
			w.oldestRemove = min(w.oldestRemove, n.since)
			if !ordered(sub.typ) {
				w.owed = min(w.owed, n.since)
			}
		case n.answer && answersAbsent(sub.typ):
			w.absent = append(w.absent, it)
		case sub.flight == nil:
			delete(sub.refused, name)
			delete(sub.pending, name)
		}
	}
	return w
}

// tooEarly tells whether a cluster leads to a listener inside of the client that is not there
// yet, with its routes: a connection would be refused. A new one waits for it, and not for
// ever.
func (s *Stream) tooEarly(sub *subscription, r *Resource, n *need, now time.Time) bool {
	if sub.typ != ClusterType || sub.held[r.Name] != nil && !n.force {
		return false
	}
	for _, need := range r.Needs {
		if need.Type != ListenerType || s.listens(need.Name) {
			continue
		}
		if n.early.IsZero() {
			n.early = now
		}
		until := n.early.Add(2 * s.pace.Patience) // the listener itself may wait for once that
		if now.Before(until) {
			s.wakeAt(until)
			return true
		}
	}
	return false
}

// listens tells whether the client has a listener and what that needs.
func (s *Stream) listens(name string) bool {
	listeners, routes := s.types[ListenerType], s.types[RouteType]
	if listeners == nil || listeners.held[name] == nil || listeners.loses(name) {
		return false
	}
	needs := listeners.held[name].Needs
	if e := s.cache.lookup(ListenerType, name, s.proxy.Variants); len(needs) == 0 && e != nil {
		needs = e.resource.Needs // of one from an earlier stream we know no more than its name
	}
	for _, need := range needs {
		if need.Type == RouteType && (routes == nil || routes.held[need.Name] == nil) {
			return false
		}
	}
	return true
}

// holdAdditions takes from the lists what has to wait for earlier types.
func (s *Stream) holdAdditions(work map[string]*worklist, now time.Time) {
	limit := uint64(never)
	for _, typ := range addOrder {
		if w := work[typ]; w != nil {
			if typ != EndpointType {
				w.adds = slices.DeleteFunc(w.adds, func(it item) bool { return it.revision >= limit })
			}
			limit = min(limit, w.oldestAdd)
		}
		if typ == EndpointType {
			limit = min(limit, s.oldestWarmUp(now, EndpointType))
		}
	}
}

// oldestWarmUp is the earliest revision for which the client still has to subscribe to
// something of a type. What it has had time enough for is forgotten.
func (s *Stream) oldestWarmUp(now time.Time, typ string) uint64 {
	oldest := uint64(never)
	for key, w := range s.warming {
		if key.Type != typ {
			continue
		}
		if !now.Before(w.deadline) {
			delete(s.warming, key)
			continue
		}
		oldest = min(oldest, w.since)
		s.wakeAt(w.deadline)
	}
	return oldest
}

func (s *Stream) wakeAt(t time.Time) {
	if s.wake.IsZero() || t.Before(s.wake) {
		s.wake = t
	}
}

// holdRemovals takes from the lists the removals that have to wait.
func (s *Stream) holdRemovals(work map[string]*worklist, now time.Time) {
	limit := min(s.oldestWarmUp(now, EndpointType), s.oldestWarmUp(now, RouteType))
	for _, typ := range addOrder {
		if w := work[typ]; w != nil {
			limit = min(limit, w.oldestAdd)
		}
	}
	onPurpose := false // a cluster waits on purpose, and so do its endpoints
	for _, typ := range removeOrder {
		w := work[typ]
		if w == nil {
			continue
		}
		w.removes = slices.DeleteFunc(w.removes, func(it item) bool {
			held := it.revision >= limit
			kept := typ == EndpointType && onPurpose
			if !held && (typ == ClusterType || typ == EndpointType) {
				kept = s.lastGoodUses(Key{Type: typ, Name: it.name}) || s.lingers(it, now)
			}
			if kept {
				onPurpose = true
			} else {
				w.owed = min(w.owed, it.need.since)
			}
			return held || kept
		})
		limit = min(limit, w.oldestRemove)
	}
}

// lingers tells whether a cluster's removal still has to wait for its Linger.
func (s *Stream) lingers(it item, now time.Time) bool {
	if s.pace.Linger <= 0 {
		return false
	}
	if it.need.free.IsZero() {
		it.need.free = now
	}
	until := it.need.free.Add(s.pace.Linger)
	if !now.Before(until) {
		return false
	}
	s.wakeAt(until)
	return true
}

// lastGoodUses tells whether a listener or route that the client keeps because it has
// refused the newest one may use the cluster or endpoints. If the kept one declares
// what it needs, that is believed; else anything may be in use.
func (s *Stream) lastGoodUses(k Key) bool {
	for _, typ := range [...]string{ListenerType, RouteType} {
		sub := s.types[typ]
		if sub == nil {
			continue
		}
		for name := range sub.refused {
			kept := sub.held[name]
			if kept == nil {
				continue
			}
			if len(kept.Needs) == 0 {
				return true
			}
			for _, need := range kept.Needs {
				if need.Name == k.Name {
					return true
				}
			}
		}
	}
	return false
}

// send makes the next response of a type, if one may go out: additions and answers
// before removals.
func (s *Stream) send(w *worklist) *Response {
	sub := w.sub
	if sub.flight != nil || len(w.adds)+len(w.absent)+len(w.removes) == 0 {
		return nil
	}
	f := &flight{adds: oneGroup(w.adds), removes: w.absent}
	if len(f.adds) == 0 {
		f.removes = append(f.removes, w.removes...)
	}
	byName := func(a, b item) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(f.adds, byName)
	slices.SortFunc(f.removes, byName)

	s.nonce++
	f.nonce = strconv.FormatUint(s.nonce, 10)
	r := &Response{TypeURL: sub.typ, Nonce: f.nonce, Version: strconv.FormatUint(s.cursor, 10)}
	size := 0
	for i, it := range f.adds {
		if size += it.resource.Size(); size > maxResponseBytes && i > 0 {
			f.adds = f.adds[:i]
			break
		}
		r.Resources = append(r.Resources, it.resource)
		delete(sub.pending, it.name)
	}
	for _, it := range f.removes {
		r.Removed = append(r.Removed, it.name)
		delete(sub.pending, it.name)
	}
	sub.flight = f
	return r
}

// oneGroup returns the items of the lowest group among them.
func oneGroup(items []item) []item {
	lowest := 0
	for i, it := range items {
		if i == 0 || it.need.group < lowest {
			lowest = it.need.group
		}
	}
	return slices.DeleteFunc(items, func(it item) bool { return it.need.group != lowest })
}
