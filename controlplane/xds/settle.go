package xds

import (
	"slices"
	"strings"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// maxErrorBytes is how much of a client's error text is kept per refused resource.
const maxErrorBytes = 2048

// settle ends the flight of a type with the client's ACK, or its NACK if detail is set.
func (s *Stream) settle(sub *subscription, detail *rpcstatus.Status, now time.Time) {
	f := sub.flight
	sub.flight = nil
	sub.lastAck = now
	if detail == nil {
		s.counts.acks++
		s.accept(sub, f.adds)
		if sub.typ == ClusterType && s.types[EndpointType] == nil {
			s.cool(f.adds)
		}
		s.gone(sub, f.removes)
		return
	}
	s.counts.nacks++
	text := errorText(detail)
	if len(f.adds) == 0 { // a client cannot refuse to lose something
		s.gone(sub, f.removes)
		return
	}
	s.repeat(sub, f.removes) // perhaps nothing of the response was applied
	names := make([]string, len(f.adds))
	for i, it := range f.adds {
		names[i] = it.name
	}
	blamed, known := Blame(sub.typ, detail.GetMessage(), names)
	if !known {
		s.isolate(sub, f.adds)
		return
	}
	var bad, good []item
	for _, it := range f.adds {
		if slices.Contains(blamed, it.name) {
			bad = append(bad, it)
		} else {
			good = append(good, it)
		}
	}
	for _, it := range bad {
		sub.refused[it.name] = Refusal{
			Key: it.resource.Key, Version: it.resource.Version, Error: text, Time: now,
			Changed: changed(it.resource, sub.held[it.name]), since: it.need.since,
		}
		if n := sub.pending[it.name]; n != nil { // a newer version already waits
			n.since = min(n.since, it.need.since)
		}
	}
	s.accept(sub, good)
	s.cool(bad)
}

// errorText is what a client says is wrong, cut to a bearable length.
func errorText(detail *rpcstatus.Status) string {
	text := detail.GetMessage()
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// accept notes what the client has taken.
func (s *Stream) accept(sub *subscription, items []item) {
	for _, it := range items {
		if !sub.tracks(it.name) {
			continue // unsubscribed meanwhile
		}
		sub.held[it.name] = it.resource
		delete(sub.refused, it.name)
	}
}

// follow makes the endpoints of clusters that are being sent come after them, even if
// the client has them: Envoy warms a new or changed cluster with an EDS answer that
// comes later, and does not ask again. It withholds the ACK of the clusters until they
// are warm, so this cannot wait for that ACK.
func (s *Stream) follow(clusters []item, now time.Time) {
	endpoints := s.types[EndpointType]
	for _, cluster := range clusters {
		for _, need := range cluster.resource.Needs {
			if need.Type != EndpointType {
				continue
			}
			if endpoints != nil && endpoints.tracks(need.Name) {
				endpoints.mark(need.Name, cluster.need.since, 0).force = true // refused or not: a NACK ends the warming, too
			} else {
				s.warming[need] = warmUp{since: cluster.need.since, deadline: now.Add(s.pace.Patience)}
			}
		}
	}
}

// expect waits for the client to ask for the routes of listeners that are being sent.
// Envoy does so about when it ACKs them; until then the change has not settled.
func (s *Stream) expect(listeners []item, now time.Time) {
	routes := s.types[RouteType]
	for _, listener := range listeners {
		for _, need := range listener.resource.Needs {
			if need.Type == RouteType && (routes == nil || !routes.tracks(need.Name)) {
				s.warming[need] = warmUp{since: listener.need.since, deadline: now.Add(s.pace.Patience)}
			}
		}
	}
}

// cool ends the wait for what clusters and listeners need that the client does not have.
// Envoy subscribes to endpoints before it ACKs a cluster; a client that has never asked
// for any by then will not.
func (s *Stream) cool(items []item) {
	for _, it := range items {
		for _, need := range it.resource.Needs {
			delete(s.warming, need)
		}
	}
}

// gone notes what the client has removed.
func (s *Stream) gone(sub *subscription, items []item) {
	for _, it := range items {
		if held := sub.held[it.name]; held != nil {
			for _, need := range held.Needs {
				delete(s.warming, need)
			}
		}
		delete(sub.held, it.name)
		delete(sub.refused, it.name)
	}
}

// isolate finds the bad ones of a response that was refused as a whole, by halving it:
// each half is sent once more on its own, down to single resources.
func (s *Stream) isolate(sub *subscription, items []item) {
	for i, it := range items {
		if !sub.tracks(it.name) {
			continue
		}
		n := sub.mark(it.name, it.need.since, it.need.at)
		n.force = true
		n.group = sub.groups + 1
		if i >= len(items)/2 {
			n.group++
		}
	}
	sub.groups += 2
}

// repeat puts removals back on the list.
func (s *Stream) repeat(sub *subscription, items []item) {
	for _, it := range items {
		if sub.tracks(it.name) {
			n := sub.mark(it.name, it.need.since, it.need.at)
			n.force = n.force || it.need.force
			n.answer = n.answer || it.need.answer
		}
	}
}

// Blame tells which resources of a refused response were bad; the others are live. The
// protocol does not say; Envoy applies the good clusters and listeners of a response
// and names the bad:
//
//	Error adding/updating cluster(s) NAME: REASON, NAME: REASON
//	Error adding/updating listener(s) NAME: REASON\nNAME: REASON\n
//
// Any other text (a message that does not decode or validate, a bad route) may mean
// that nothing of the response was applied. Then known is false, unless there is only
// one name.
func Blame(typ, text string, names []string) (bad []string, known bool) {
	if len(names) == 1 {
		return names, true
	}
	var list string
	var ok bool
	switch typ {
	case ClusterType:
		list, ok = strings.CutPrefix(text, "Error adding/updating cluster(s) ")
	case ListenerType:
		list, ok = strings.CutPrefix(text, "Error adding/updating listener(s) ")
	}
	if !ok {
		return nil, false
	}
	for _, name := range names {
		entry := name + ": "
		if strings.HasPrefix(list, entry) || strings.Contains(list, ", "+entry) || strings.Contains(list, "\n"+entry) {
			bad = append(bad, name)
		}
	}
	return bad, len(bad) > 0
}
