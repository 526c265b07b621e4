package xds

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// ProxyStatus is what the server knows of one connected proxy.
type ProxyStatus struct {
	Proxy     Proxy
	Node      string // id that the proxy gave itself
	Connected time.Time
	Cursor    uint64 // cache revision that it has been compared with
	Settled   uint64 // revision up to which it has ACKed or refused all that concerns it
	LastAck   time.Time
	Types     []TypeStatus
	Refused   []Refusal // sorted by key
}

// TypeStatus is one type of a proxy.
type TypeStatus struct {
	Type     string
	Wildcard bool
	Named    int // names subscribed to
	Held     int // resources that the proxy has taken
	Pending  int // names still to be compared or sent
	InFlight bool
	LastAck  time.Time // of an ACK or NACK
}

// Status returns the connected proxies sorted by ID, the longest connected first among
// those of the same ID.
func (s *Server) Status() []ProxyStatus {
	var out []ProxyStatus
	for _, se := range s.snapshot() {
		out = append(out, se.status())
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		if c := strings.Compare(a.Proxy.ID, b.Proxy.ID); c != 0 {
			return c
		}
		return a.Connected.Compare(b.Connected)
	})
	return out
}

func (s *Server) snapshot() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*session, 0, len(s.sessions))
	for se := range s.sessions {
		out = append(out, se)
	}
	return out
}

func (se *session) status() ProxyStatus {
	se.mu.Lock()
	defer se.mu.Unlock()
	st := se.stream
	p := ProxyStatus{Proxy: st.proxy, Node: se.node, Connected: se.since, Cursor: st.cursor, Settled: st.settled}
	for typ, sub := range st.types {
		p.Types = append(p.Types, TypeStatus{
			Type: typ, Wildcard: sub.wildcard, Named: len(sub.named), Held: len(sub.held),
			Pending: len(sub.pending), InFlight: sub.flight != nil, LastAck: sub.lastAck,
		})
		for _, r := range sub.refused {
			p.Refused = append(p.Refused, r)
		}
		if sub.lastAck.After(p.LastAck) {
			p.LastAck = sub.lastAck
		}
	}
	slices.SortFunc(p.Types, func(a, b TypeStatus) int { return strings.Compare(a.Type, b.Type) })
	slices.SortFunc(p.Refused, func(a, b Refusal) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return p
}

// Covers tells which resources a connected proxy gets by its wildcards, as far as groups
// decide it; of one that is not connected, all.
func (s *Server) Covers(proxy string) func(*Resource) bool {
	for _, se := range s.snapshot() {
		if se.stream.proxy.ID != proxy || !se.stream.proxy.OnDemand {
			continue
		}
		se.mu.Lock()
		groups := maps.Clone(se.stream.groups)
		se.mu.Unlock()
		return func(r *Resource) bool { return covers(groups, r) }
	}
	return func(*Resource) bool { return true }
}

// Reach is how far one resource has come.
type Reach struct {
	Total   int                // connected proxies that want it, or still hold it after its removal
	Live    int                // those that have taken its newest version
	Refused map[string]Refusal // proxy ID -> NACK of its newest version
}

// Interested tells how far a resource has come. One that was removed is gone from every
// proxy when Total is 0.
func (s *Server) Interested(k Key) Reach {
	newest := s.config.Cache.Get(k)
	reach := Reach{Refused: make(map[string]Refusal)}
	for _, se := range s.snapshot() {
		se.mu.Lock()
		if wants, holds, refusal := se.stream.holds(k, newest); wants {
			reach.Total++
			if holds {
				reach.Live++
			}
			if refusal != nil {
				reach.Refused[se.stream.proxy.ID] = *refusal
			}
		}
		se.mu.Unlock()
	}
	return reach
}

// holds tells how a stream stands to the newest version of a resource, nil for removed.
func (s *Stream) holds(k Key, newest *Resource) (wants, holds bool, refusal *Refusal) {
	sub := s.types[k.Type]
	if sub == nil {
		return false, false, nil
	}
	held := sub.held[k.Name]
	if newest == nil {
		return held != nil && held.Variant == k.Variant, false, nil
	}
	s.cache.mu.RLock()
	e := s.want(sub, k.Name)
	s.cache.mu.RUnlock()
	if e == nil || e.key != k {
		return false, false, nil
	}
	if r, ok := sub.refused[k.Name]; ok && r.Version == newest.Version {
		return true, false, &r
	}
	return true, held != nil && held.Version == newest.Version, nil
}
