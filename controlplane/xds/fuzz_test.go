package xds

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// The world of FuzzStream: clusters c0..c3 with endpoints of the same name, routes
// r0..r1 that name clusters, listeners l0..l1 with the route of their number, and clusters
// f0..f1 that lead to these. Listener and f of a number are a group, and so are the clusters
// of its route. A version that starts with "bad" is refused by the client.

const (
	fuzzClusters = 4
	fuzzRoutes   = 2
)

// fuzzWorld changes the cache at random, but never so that a route names a cluster that
// does not exist, as the pipeline guarantees.
type fuzzWorld struct {
	t       testing.TB
	rand    *rand.Rand
	cache   *Cache
	version int
	routes  map[string][]string // route -> clusters it names
}

func (w *fuzzWorld) resource(typ, name string, uses []string, needs ...Key) *Resource {
	w.version++
	version := fmt.Sprintf("v%d", w.version)
	if w.rand.IntN(8) == 0 {
		version = "bad" + version
	}
	r, err := NewEncoded(Key{Type: typ, Name: name}, version, &anypb.Any{TypeUrl: typ, Value: []byte(strings.Join(uses, ","))}, nil, needs...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *fuzzWorld) change() {
	var set []*Resource
	var remove []Key
	for i := range fuzzRoutes {
		name := fmt.Sprintf("r%d", i)
		switch w.rand.IntN(4) {
		case 0: // names other clusters
			var uses []string
			for c := range fuzzClusters {
				if w.rand.IntN(3) == 0 {
					uses = append(uses, fmt.Sprintf("c%d", c))
				}
			}
			w.routes[name] = uses
			var needs []Key
			if w.rand.IntN(2) == 0 {
				for _, c := range uses {
					needs = append(needs, Key{Type: ClusterType, Name: c})
				}
			}
			listener := Key{Type: ListenerType, Name: fmt.Sprintf("l%d", i)}
			set = append(set, w.resource(RouteType, name, uses, needs...),
				w.resource(ListenerType, listener.Name, []string{name}, Key{Type: RouteType, Name: name}),
				w.resource(ClusterType, fmt.Sprintf("f%d", i), nil, listener))
			for _, r := range set[len(set)-3:] {
				r.Groups = []string{fmt.Sprintf("g%d", i)}
			}
		case 1:
			delete(w.routes, name)
			remove = append(remove, Key{Type: RouteType, Name: name}, Key{Type: ListenerType, Name: fmt.Sprintf("l%d", i)}, Key{Type: ClusterType, Name: fmt.Sprintf("f%d", i)})
		}
	}
	for i := range fuzzClusters {
		name := fmt.Sprintf("c%d", i)
		used := false
		for _, uses := range w.routes {
			used = used || slices.Contains(uses, name)
		}
		cluster, endpoints := Key{Type: ClusterType, Name: name}, Key{Type: EndpointType, Name: name}
		switch {
		case used && w.cache.Get(cluster) == nil, w.rand.IntN(4) == 0:
			set = append(set, w.grouped(w.resource(ClusterType, name, nil, endpoints)), w.resource(EndpointType, name, nil))
		case w.rand.IntN(4) == 0 && w.cache.Get(cluster) != nil:
			set = append(set, w.resource(EndpointType, name, nil))
		case !used && w.rand.IntN(2) == 0:
			remove = append(remove, cluster, endpoints)
		}
		if now := w.cache.Get(cluster); now != nil && !slices.ContainsFunc(set, func(r *Resource) bool { return r.Key == cluster }) && !slices.Contains(remove, cluster) {
			again := *now
			set = append(set, w.grouped(&again)) // a route may use it now, or no more
		}
	}
	w.cache.Update(set, remove)
	if testing.Verbose() {
		for _, r := range set {
			w.t.Logf("rev %d: set %s=%s %s", w.cache.Revision(), r.Key, r.Version, r.body)
		}
		w.t.Logf("remove %v", remove)
	}
}

// grouped puts a cluster into the groups of the routes that name it, after one of its own.
func (w *fuzzWorld) grouped(r *Resource) *Resource {
	r.Groups = []string{r.Name}
	for i := range fuzzRoutes {
		if slices.Contains(w.routes[fmt.Sprintf("r%d", i)], r.Name) {
			r.Groups = append(r.Groups, fmt.Sprintf("g%d", i))
		}
	}
	return r
}

// fuzzEnvoy is a client that behaves as Envoy does, and checks what it gets.
type fuzzEnvoy struct {
	t       testing.TB
	rand    *rand.Rand
	stream  *Stream
	now     time.Time
	state   map[string]map[string]*Resource // type -> name -> what it holds
	warm    map[string]bool                 // clusters that ever got endpoints since they were added
	refused map[string]bool                 // TYPE NAME whose last version sent was bad
	warming map[string]bool                 // clusters that wait for endpoints; the ACK of CDS waits for them
	ack     *discoveryv3.DeltaDiscoveryRequest
	inbox   []*Response
	started map[string]bool // types for which a request was sent on this stream
	sent    int

	onDemand bool
}

func (e *fuzzEnvoy) request(req *discoveryv3.DeltaDiscoveryRequest) {
	if !e.started[req.TypeUrl] {
		e.started[req.TypeUrl] = true
		req.InitialResourceVersions = make(map[string]string)
		for name, r := range e.state[req.TypeUrl] {
			req.InitialResourceVersions[name] = r.Version
		}
	}
	if err := e.stream.Request(req, e.now); err != nil {
		e.t.Fatal(err)
	}
}

// connect opens a new stream with what is held from the last.
func (e *fuzzEnvoy) connect(cache *Cache) {
	e.stream = NewStream(cache, Proxy{ID: "fuzz", OnDemand: e.onDemand}, Pace{Patience: time.Second})
	if testing.Verbose() {
		e.t.Log("connect")
	}
	e.ack, e.warming = nil, make(map[string]bool) // it gives up warming after a while
	e.inbox, e.started = nil, make(map[string]bool)
	e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType})
	e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: EndpointType, ResourceNamesSubscribe: slices.DeleteFunc(sortedNames(e.state[ClusterType]), isFront)})
	e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ListenerType})
	var routes []string
	for _, l := range e.state[ListenerType] {
		routes = append(routes, string(l.body))
	}
	slices.Sort(routes)
	e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: RouteType, ResourceNamesSubscribe: routes})
}

func isFront(cluster string) bool { return strings.HasPrefix(cluster, "f") }

// ask asks for a cluster that leads to a listener, as for a connection.
func (e *fuzzEnvoy) ask() {
	if name := fmt.Sprintf("f%d", e.rand.IntN(fuzzRoutes)); e.state[ClusterType][name] == nil {
		e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResourceNamesSubscribe: []string{name}})
	}
}

func sortedNames(m map[string]*Resource) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (e *fuzzEnvoy) pull() {
	for _, r := range e.stream.Next(e.now) {
		if testing.Verbose() {
			e.t.Logf("sent %s", describe(r))
		}
		for _, other := range e.inbox {
			if other.TypeURL == r.TypeURL {
				e.t.Fatalf("two %s responses un-ACKed", shortType(r.TypeURL))
			}
		}
		e.inbox = append(e.inbox, r)
		if e.sent++; e.sent > 100_000 {
			e.t.Fatal("endless responses")
		}
	}
}

// answer takes the oldest response, as Envoy does: a decoding error refuses everything,
// a bad cluster or listener only itself.
func (e *fuzzEnvoy) answer() {
	r := e.inbox[0]
	if testing.Verbose() {
		e.t.Logf("answer %s", describe(r))
	}
	e.inbox = e.inbox[1:]
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeURL, ResponseNonce: r.Nonce}
	var bad []string
	for _, res := range r.Resources {
		if strings.HasPrefix(res.Version, "bad") {
			bad = append(bad, res.Name+": bad")
		}
	}
	named := r.TypeURL == ClusterType || r.TypeURL == ListenerType
	whole := len(bad) > 0 && (!named || e.rand.IntN(2) == 0)
	if whole {
		ack.ErrorDetail = &rpcstatus.Status{Message: "Proto constraint validation failed"}
	} else if len(bad) > 0 {
		prefix := "Error adding/updating cluster(s) "
		if r.TypeURL == ListenerType {
			prefix = "Error adding/updating listener(s) "
		}
		ack.ErrorDetail = &rpcstatus.Status{Message: prefix + strings.Join(bad, ", ")}
	}
	for _, res := range r.Resources {
		isBad := strings.HasPrefix(res.Version, "bad")
		if isBad {
			e.refused[shortType(res.Type)+" "+res.Name] = true
			if res.Type == EndpointType {
				delete(e.warming, res.Name)
			}
		}
		if !whole && !isBad {
			e.take(res)
		}
	}
	if !whole {
		for _, name := range r.Removed {
			e.remove(r.TypeURL, name)
		}
	}
	if r.TypeURL == ClusterType {
		e.ack = ack
	} else {
		e.request(ack)
	}
	if e.ack != nil && len(e.warming) == 0 {
		e.request(e.ack)
		e.ack = nil
	}
}

func (e *fuzzEnvoy) take(r *Resource) {
	had := e.state[r.Type][r.Name]
	e.state[r.Type][r.Name] = r
	delete(e.refused, shortType(r.Type)+" "+r.Name)
	switch r.Type {
	case ClusterType:
		if isFront(r.Name) {
			if had == nil {
				e.leads(r)
			}
			return
		}
		if had == nil || had.Version != r.Version {
			e.warming[r.Name] = true
		}
		if had == nil {
			e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: EndpointType, ResourceNamesSubscribe: []string{r.Name}})
		}
	case EndpointType:
		e.warm[r.Name] = true
		delete(e.warming, r.Name)
	case ListenerType:
		if had == nil {
			e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: RouteType, ResourceNamesSubscribe: []string{string(r.body)}})
		}
	case RouteType:
		for _, c := range usedBy(r) {
			if e.state[ClusterType][c] == nil && !e.refused["cds "+c] {
				e.t.Fatalf("route %s=%s came before its cluster %s", r.Name, r.Version, c)
			}
			if !e.warm[c] && !e.refused["cds "+c] && !e.refused["eds "+c] {
				e.t.Fatalf("route %s=%s came before the endpoints of its cluster %s", r.Name, r.Version, c)
			}
		}
	}
}

// leads checks that a cluster which leads to a listener comes when that is there, with its
// routes, unless there can be none.
func (e *fuzzEnvoy) leads(r *Resource) {
	listener := r.Needs[0].Name
	route := "r" + listener[1:]
	for typ, name := range map[string]string{ListenerType: listener, RouteType: route} {
		newest := e.stream.cache.Get(Key{Type: typ, Name: name})
		if newest == nil || strings.HasPrefix(newest.Version, "bad") || e.refused[shortType(typ)+" "+name] {
			return
		}
	}
	if e.state[ListenerType][listener] == nil || e.state[RouteType][route] == nil {
		e.t.Fatalf("cluster %s came before %s and %s", r.Name, listener, route)
	}
}

func usedBy(r *Resource) []string {
	return strings.FieldsFunc(string(r.body), func(c rune) bool { return c == ',' })
}

func (e *fuzzEnvoy) remove(typ, name string) {
	had := e.state[typ][name]
	if typ == EndpointType {
		delete(e.warming, name) // an answer, too
		return                  // Envoy keeps what it has
	}
	if had == nil {
		return
	}
	if typ == ClusterType {
		for _, route := range e.state[RouteType] {
			if slices.Contains(usedBy(route), name) {
				e.t.Fatalf("cluster %s removed while route %s=%s names it", name, route.Name, route.Version)
			}
		}
	}
	delete(e.state[typ], name)
	switch typ {
	case ClusterType:
		delete(e.state[EndpointType], name)
		delete(e.warm, name)
		delete(e.warming, name)
		e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: EndpointType, ResourceNamesUnsubscribe: []string{name}})
	case ListenerType:
		delete(e.state[RouteType], string(had.body))
		e.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: RouteType, ResourceNamesUnsubscribe: []string{string(had.body)}})
	}
}

// settle answers everything until nothing moves.
func (e *fuzzEnvoy) settle() {
	for range 10_000 {
		e.pull()
		if len(e.inbox) > 0 {
			e.answer()
		} else if wake := e.stream.Wake(); !wake.IsZero() {
			e.now = wake
		} else {
			if e.ack != nil {
				e.t.Fatalf("clusters wait for endpoints for ever: %v", e.warming)
			}
			return
		}
	}
	e.t.Fatal("never quiet")
}

// check compares the client with the cache when all is quiet.
func (e *fuzzEnvoy) check(cache *Cache) {
	if e.stream.Settled() != cache.Revision() {
		e.t.Fatalf("settled %d of %d", e.stream.Settled(), cache.Revision())
	}
	keeps := false // a refused listener or route may keep clusters
	for _, typ := range addOrder {
		for _, r := range slices.Collect(cache.All()) {
			if r.Type != typ {
				continue
			}
			_, subscribed := e.stream.types[typ].named[r.Name]
			if !subscribed && !e.stream.types[typ].wildcard || typ != EndpointType && !e.stream.sees(cache.entries[r.Key]) {
				continue
			}
			held := e.state[typ][r.Name]
			if strings.HasPrefix(r.Version, "bad") {
				keeps = keeps || held != nil
				if _, ok := e.stream.types[typ].refused[r.Name]; !ok {
					e.t.Fatalf("bad %s=%s is not marked as refused", r.Key, r.Version)
				}
			} else if held == nil || held.Version != r.Version {
				e.t.Fatalf("client has %v of %s, want %s", held, r.Key, r.Version)
			}
		}
		for name, r := range e.state[typ] {
			if e.gone(cache, r) && !keeps && (typ == ListenerType || typ == RouteType) {
				e.t.Fatalf("client still has %s %s", typ, name)
			}
		}
	}
	for name, r := range e.state[ClusterType] {
		if e.gone(cache, r) && !keeps {
			e.t.Fatalf("client still has cluster %s", name)
		}
	}
}

// gone tells whether the client should not have a resource.
func (e *fuzzEnvoy) gone(cache *Cache, r *Resource) bool {
	return cache.Get(r.Key) == nil || e.stream.types[r.Type].wildcard && !e.stream.sees(cache.entries[r.Key])
}

// FuzzStream lets a client live through random changes, answers and reconnects.
func FuzzStream(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, []byte("0250252525255252000255925255200552582052525258"))
	}
	f.Fuzz(func(t *testing.T, seed uint64, ops []byte) {
		random := rand.New(rand.NewPCG(seed, 0))
		w := &fuzzWorld{t: t, rand: random, cache: NewCache(), routes: make(map[string][]string)}
		e := &fuzzEnvoy{t: t, rand: random, now: time.Unix(1e9, 0), warm: make(map[string]bool), refused: make(map[string]bool), state: make(map[string]map[string]*Resource)}
		for _, typ := range addOrder {
			e.state[typ] = make(map[string]*Resource)
		}
		e.onDemand = seed%2 == 1
		e.connect(w.cache)
		for _, op := range ops {
			switch (op - '0') % 10 {
			case 0, 1:
				w.change()
			case 2, 3, 4:
				e.pull()
			case 5, 6, 7:
				if len(e.inbox) > 0 {
					e.answer()
				}
			case 8:
				e.settle()
				e.check(w.cache)
			case 9:
				e.connect(w.cache)
			}
			if e.onDemand && random.IntN(4) == 0 {
				e.ask()
			}
			if e.onDemand && random.IntN(12) == 0 { // it has used it for long enough not
				group := fmt.Sprintf("g%d", random.IntN(fuzzRoutes))
				if testing.Verbose() {
					t.Logf("leave %s", group)
				}
				e.stream.Leave(group)
			}
		}
		e.settle()
		e.check(w.cache)
	})
}
