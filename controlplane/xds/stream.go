package xds

import (
	"fmt"
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
	// Scope limits what a wildcard subscription sees; nil means everything. Names that
	// the client asks for are served in any case. It must be a pure function.
	Scope func(Key) bool
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
	cursor  uint64         // cache revision up to which pending is complete
	warming map[Key]warmUp // endpoints and routes that the client has yet to ask for
	nonce   uint64         // of the last response
	wake    time.Time      // when Next should be called without an event; zero: never
	settled uint64         // see Settled
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
	return &Stream{
		cache: cache, proxy: proxy, pace: pace,
		types: make(map[string]*subscription), warming: make(map[Key]warmUp),
	}
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
	if len(sub.named) > maxNames {
		return fmt.Errorf("request of %s: more than %d names of %s", s.proxy.ID, maxNames, typ)
	}
	return nil
}

// resume handles the first request of a type: a wildcard by saying nothing, and what
// the client holds from an earlier stream.
func (s *Stream) resume(sub *subscription, req *discoveryv3.DeltaDiscoveryRequest) {
	for name, version := range req.GetInitialResourceVersions() {
		if e := s.cache.lookup(sub.typ, name, s.proxy.Variants); e != nil && e.resource.Version == version {
			sub.held[e.resource.Name] = e.resource
			if s.proxy.Scope == nil {
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
				if len(sub.held) == 0 || s.proxy.Scope != nil || !sub.current(name, s.cache.lookup(sub.typ, name, s.proxy.Variants)) {
					sub.mark(name, 0, s.cache.revision)
				}
			}
			continue
		}
		sub.named[name] = struct{}{}
		_, holds := initial[name]
		if !holds || s.proxy.Scope != nil || !sub.current(name, s.cache.lookup(sub.typ, name, s.proxy.Variants)) {
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
	if e != nil && !named && s.proxy.Scope != nil && !s.proxy.Scope(e.key) {
		return nil
	}
	return e
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
			if sub := s.types[e.key.Type]; sub != nil && sub.tracks(e.key.Name) && s.concerns(e.key) {
				n := sub.mark(e.key.Name, first, e.revision)
				if r, ok := sub.refused[e.key.Name]; ok {
					n.since = min(n.since, r.since) // lacking since the bad one
				}
			}
		}
	}
	s.cursor = s.cache.revision
}

// Rescope tells the stream to compare everything again, with another Scope.
func (s *Stream) Rescope(scope func(Key) bool) {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	s.proxy.Scope = scope
	for _, sub := range s.types {
		s.markAll(sub, 0)
	}
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
