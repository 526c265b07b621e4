package xds

import (
	"fmt"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Limits on what one client can make the server remember.
const (
	maxTypes = 64
	maxNames = 200_000 // subscribed names of one type
)

// Proxy is what the server knows about the client of a stream.
type Proxy struct {
	ID         string            // unique among the connected, such as the workload's name
	Variants   []string          // tried in order before the variant for everybody
	Attributes map[string]string // for people; the package does not read them
	// OnDemand limits what a wildcard subscription sees to resources without a group and
	// those of Groups, and to the groups of what the client asks for by name later on.
	OnDemand bool
	Groups   []string
	// Sharing is the same for proxies that are interested in the same; see Server.Join.
	Sharing string
}

// Pace is what a stream does by time.
type Pace struct {
	// Patience bounds how long listeners and routes wait for Envoy to subscribe to the
	// endpoints of a cluster it has accepted.
	Patience time.Duration
	// Linger is how long a cluster stays after the last route to it has gone, for the
	// sake of requests that are being retried.
	Linger time.Duration
}

// Stream is the bookkeeping of one delta ADS client. It does no I/O and asks no clock:
// feed it what the client sends with Request, send what Next returns, and call Next
// again whenever the cache has changed, a request came, or Wake has passed. It is not
// safe for concurrent use.
type Stream struct {
	cache *Cache
	proxy Proxy
	pace  Pace

	types   map[string]*subscription
	cursor  uint64              // cache revision up to which pending is complete
	groups  map[string]struct{} // that the proxy is interested in; nil: all
	asked   []string            // of them, those that the client has asked for since Asked
	warming map[Key]warmUp      // endpoints and routes that the client has yet to ask for
	nonce   uint64              // of the last response
	wake    time.Time           // when Next should be called without an event; zero: never
	settled uint64              // see Settled
	counts  counts
}

// counts is how often the client has answered.
type counts struct{ acks, nacks uint64 }

// warmUp is the wait for a client to subscribe to the endpoints of a cluster, or the
// routes of a listener, that it was sent.
type warmUp struct {
	since    uint64
	deadline time.Time
}

// NewStream begins the bookkeeping of a client that has subscribed to nothing yet.
func NewStream(cache *Cache, proxy Proxy, pace Pace) *Stream {
	s := &Stream{
		cache: cache, proxy: proxy, pace: pace,
		types: make(map[string]*subscription), warming: make(map[Key]warmUp),
	}
	if proxy.OnDemand {
		s.groups = make(map[string]struct{})
		for _, g := range proxy.Groups {
			s.groups[g] = struct{}{}
		}
	}
	return s
}

// Request takes in one message of the client. An error means that the client does not
// follow the protocol, and that the stream should end with it.
func (s *Stream) Request(req *discoveryv3.DeltaDiscoveryRequest, now time.Time) error {
	typ := req.GetTypeUrl()
	if typ == "" {
		return fmt.Errorf("request of %s has no type_url", s.proxy.ID)
	}
	sub := s.types[typ]
	if sub != nil && sub.flight != nil && req.GetResponseNonce() == sub.flight.nonce {
		s.settle(sub, req.GetErrorDetail(), now)
	}

	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	first := sub == nil
	if first {
		if len(s.types) >= maxTypes {
			return fmt.Errorf("request of %s: more than %d types on one stream", s.proxy.ID, maxTypes)
		}
		if len(s.types) == 0 {
			s.cursor = s.cache.revision
		}
		sub = newSubscription(typ, len(req.GetInitialResourceVersions()))
		s.types[typ] = sub
		s.resume(sub, req)
	}
	s.unsubscribe(sub, req.GetResourceNamesUnsubscribe())
	var initial map[string]string // has a meaning in the first request only
	if first {
		initial = req.GetInitialResourceVersions()
	}
	s.subscribe(sub, req.GetResourceNamesSubscribe(), initial)
	if first {
		sub.dropUntracked()
	}
	// What is asked for on demand is not kept but until it is answered.
	if len(sub.named) > maxNames || len(sub.pending) > maxNames+len(s.cache.names[typ]) {
		return fmt.Errorf("request of %s: more than %d names of %s", s.proxy.ID, maxNames, typ)
	}
	return nil
}

// resume handles the first request of a type: a wildcard by saying nothing, and what
// the client holds from an earlier stream. On demand it keeps that, whoever serves it now:
// what is a part of one group is a sign that it uses that; what is of several says nothing,
// as it may be there for the sake of any.
func (s *Stream) resume(sub *subscription, req *discoveryv3.DeltaDiscoveryRequest) {
	for name, version := range req.GetInitialResourceVersions() {
		e := s.cache.lookup(sub.typ, name, s.proxy.Variants)
		if e != nil && len(e.resource.Groups) == 1 {
			s.use(e.resource.Groups[0])
		}
		if e != nil && e.resource.Version == version {
			sub.held[e.resource.Name] = e.resource
			if s.sees(e) {
				continue // nothing to compare: what it holds is what it gets
			}
		} else {
			sub.held[name] = &Resource{Key: Key{Type: sub.typ, Name: name}, Version: version}
		}
		sub.mark(name, 0, s.cache.revision)
	}
	if len(req.GetResourceNamesSubscribe()) == 0 && emptyMeansAll(sub.typ) {
		s.subscribe(sub, []string{"*"}, nil)
	}
}

// subscribe adds names. A name subscribed to again is sent again, as the protocol
// demands, except on a reconnect that says which version the client holds.
func (s *Stream) subscribe(sub *subscription, names []string, initial map[string]string) {
	for _, name := range names {
		if name == "*" {
			sub.wildcard = true
			for name := range s.cache.names[sub.typ] {
				// Of a client that comes back most is known already, see resume.
				if e := s.cache.lookup(sub.typ, name, s.proxy.Variants); s.sees(e) && (len(sub.held) == 0 || !sub.current(name, e)) {
					sub.mark(name, 0, s.cache.revision)
				}
			}
			continue
		}
		if s.ask(sub, name) {
			continue
		}
		sub.named[name] = struct{}{}
		_, holds := initial[name]
		if !holds || !sub.current(name, s.cache.lookup(sub.typ, name, s.proxy.Variants)) {
			w := sub.mark(name, 0, 0)
			w.force = w.force || !holds
			w.answer = true
		}
		delete(s.warming, Key{Type: sub.typ, Name: name})
	}
}

// unsubscribe removes names. What the wildcard still covers is sent again, because the
// client cannot know whether it does.
func (s *Stream) unsubscribe(sub *subscription, names []string) {
	for _, name := range names {
		if name == "*" {
			sub.wildcard = false
			sub.dropUntracked()
			continue
		}
		if _, ok := sub.named[name]; !ok {
			continue
		}
		delete(sub.named, name)
		sub.drop(name)
		if sub.wildcard {
			w := sub.mark(name, 0, 0)
			w.force, w.answer = true, true
		}
	}
}

// want returns what the client should have under a name, nil for nothing.
func (s *Stream) want(sub *subscription, name string) *entry {
	_, named := sub.named[name]
	if !named && !sub.wildcard {
		return nil
	}
	e := s.cache.lookup(sub.typ, name, s.proxy.Variants)
	if !named && !s.sees(e) {
		return nil
	}
	return e
}

// sees tells whether a wildcard of the proxy's covers an entry.
func (s *Stream) sees(e *entry) bool {
	if e == nil || e.resource == nil || s.groups == nil {
		return e != nil
	}
	return covers(s.groups, e.resource)
}

func covers(groups map[string]struct{}, r *Resource) bool {
	return len(r.Groups) == 0 || slices.ContainsFunc(r.Groups, func(g string) bool {
		_, ok := groups[g]
		return ok
	})
}

// ask takes a name that a client with a wildcard on demand asks for, and routes by name, as a
// sign that it uses the group of what has that name: it gets all of that, and asks again
// should it not have it any more. Then a name is not kept, which is what ask tells: a client
// that asks for anything there might be costs nothing.
func (s *Stream) ask(sub *subscription, name string) bool {
	if s.groups == nil || !sub.wildcard && sub.typ != RouteType {
		return false
	}
	if e := s.cache.lookup(sub.typ, name, s.proxy.Variants); e != nil && len(e.resource.Groups) > 0 {
		s.use(e.resource.Groups[0])
	}
	if !sub.wildcard {
		return false
	}
	n := sub.mark(name, 0, 0)
	n.force, n.answer = true, true
	return true
}

// use joins a group for what the client has said, and notes that for Asked. Callers hold
// cache.mu.
func (s *Stream) use(group string) {
	if s.groups != nil && s.join(group) {
		s.asked = append(s.asked, group)
	}
}

// Join makes the proxy interested in groups, on demand, and Leave takes its interest in them
// away. What is there of them comes and goes by the same rules as if the cache had changed.
// Both tell whether anything is new.
func (s *Stream) Join(groups ...string) bool { return s.regroup(groups, s.join) }

// Leave is the opposite of Join.
func (s *Stream) Leave(groups ...string) bool { return s.regroup(groups, s.leave) }

func (s *Stream) regroup(groups []string, change func(group string) bool) (news bool) {
	if s.groups == nil {
		return false
	}
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	for _, g := range groups {
		news = change(g) || news
	}
	return news
}

// join and leave tell whether that is new. Callers hold cache.mu.
func (s *Stream) join(group string) bool {
	if _, ok := s.groups[group]; ok {
		return false
	}
	s.groups[group] = struct{}{}
	s.markGroup(group)
	return true
}

func (s *Stream) leave(group string) bool {
	if _, ok := s.groups[group]; !ok {
		return false
	}
	delete(s.groups, group)
	s.markGroup(group)
	return true
}

// markGroup notes that all of a group has to be compared.
func (s *Stream) markGroup(group string) {
	for e := range s.cache.groups[group] {
		if sub := s.types[e.key.Type]; sub != nil && sub.tracks(e.key.Name) && s.concerns(e.key) {
			sub.mark(e.key.Name, 0, s.cache.revision)
		}
	}
}

// Asked are the groups that the client has come to use by asking for something of theirs,
// since the last call.
func (s *Stream) Asked() []string {
	asked := s.asked
	s.asked = nil
	return asked
}

// ingest marks what changed in the cache since the cursor. Callers hold cache.mu.
func (s *Stream) ingest() {
	if s.cursor == s.cache.revision {
		return
	}
	first := s.cursor + 1 // the log is compacted: a change may be newer than the need for it
	if s.cursor < s.cache.floor {
		for _, sub := range s.types {
			s.markAll(sub, first)
		}
	} else {
		for e := range s.cache.since(s.cursor) {
			if sub := s.types[e.key.Type]; sub != nil && sub.tracks(e.key.Name) && s.concerns(e.key) && (s.sees(e) || sub.knows(e.key.Name)) {
				n := sub.mark(e.key.Name, first, e.revision)
				if r, ok := sub.refused[e.key.Name]; ok {
					n.since = min(n.since, r.since) // lacking since the bad one
				}
			}
		}
	}
	s.cursor = s.cache.revision
}

func (s *Stream) markAll(sub *subscription, since uint64) {
	for name := range sub.held {
		sub.mark(name, since, s.cache.revision)
	}
	for name := range sub.named {
		sub.mark(name, since, s.cache.revision)
	}
	if sub.wildcard {
		for name := range s.cache.names[sub.typ] {
			sub.mark(name, since, s.cache.revision)
		}
	}
}

// concerns tells whether the proxy may see this variant.
func (s *Stream) concerns(k Key) bool {
	if k.Variant == "" {
		return true
	}
	for _, v := range s.proxy.Variants {
		if v == k.Variant {
			return true
		}
	}
	return false
}

// Wake is when Next should be called even if nothing happens; zero means never.
func (s *Stream) Wake() time.Time { return s.wake }

// Settled is the revision up to which the client has ACKed or refused every change it
// is interested in, as of the last Next. It never goes back: what a client subscribes to
// later does not count against earlier changes. Removals that wait by intent (Linger, or a
// refused route that may still use the cluster) do not count.
func (s *Stream) Settled() uint64 { return s.settled }
