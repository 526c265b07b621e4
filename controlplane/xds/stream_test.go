package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// epoch is when tests begin.
var epoch = time.Unix(1e9, 0)

// shortTypes are the names of types in scripts.
var shortTypes = map[string]string{
	"cds": ClusterType, "eds": EndpointType, "lds": ListenerType, "rds": RouteType, "dns": "type.googleapis.com/test.DNS",
}

func shortType(typ string) string {
	for short, long := range shortTypes {
		if long == typ {
			return short
		}
	}
	return typ
}

// testResource makes TYPE/NAME[#VARIANT]=VERSION[@GROUP...][,needs TYPE/NAME...].
func testResource(t testing.TB, spec string) *Resource {
	t.Helper()
	parts := strings.Split(spec, ",")
	name, version, _ := strings.Cut(parts[0], "=")
	groups := strings.Split(version, "@")
	version = groups[0]
	var needs []Key
	for _, need := range parts[1:] {
		needs = append(needs, testKey(need))
	}
	key := testKey(name)
	r, err := NewEncoded(key, version, &anypb.Any{TypeUrl: key.Type, Value: []byte(version)}, nil, needs...)
	if err != nil {
		t.Fatal(err)
	}
	r.Groups = groups[1:]
	return r
}

func testKey(spec string) Key {
	typ, name, _ := strings.Cut(spec, "/")
	name, variant, _ := strings.Cut(name, "#")
	return Key{shortTypes[typ], name, variant}
}

// script runs a conversation. Lines are commands, each followed by the responses that
// it must cause, "< TYPE +NAME=VERSION... -NAME...".
//
//	set R... / del K...     change the cache, atomically; both may be joined by "; "
//	sub TYPE NAME...        subscribe (none: say nothing), unsub likewise
//	resume TYPE N=V... : NAME...   first request after a reconnect
//	ack TYPE / nack TYPE TEXT
//	join GROUP... / leave GROUP...
//	asked GROUP...          check
//	wait DURATION
//	settled N               check
func script(t *testing.T, proxy Proxy, pace Pace, text string) {
	t.Helper()
	cache := NewCache()
	s := NewStream(cache, proxy, pace)
	now := epoch
	nonces := make(map[string]string)
	var got []string
	check := func(at string) {
		t.Helper()
		if len(got) > 0 {
			t.Fatalf("before %q: unexpected response %q", at, got)
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, "<"):
			if len(got) == 0 {
				t.Fatalf("want response %q, have none", line)
			}
			if got[0] != line {
				t.Fatalf("response %q, want %q", got[0], line)
			}
			got = got[1:]
			continue
		}
		check(line)
		command, rest, _ := strings.Cut(line, " ")
		args := strings.Fields(rest)
		req := &discoveryv3.DeltaDiscoveryRequest{}
		if len(args) > 0 {
			req.TypeUrl = shortTypes[args[0]]
		}
		switch command {
		case "set", "del":
			update(t, cache, line)
			req = nil
		case "join":
			s.Join(args...)
			req = nil
		case "leave":
			s.Leave(args...)
			req = nil
		case "asked":
			if got := s.Asked(); !slices.Equal(got, args) {
				t.Fatalf("asked %q, want %q", got, args)
			}
			req = nil
		case "sub":
			req.ResourceNamesSubscribe = args[1:]
		case "unsub":
			req.ResourceNamesUnsubscribe = args[1:]
		case "resume":
			req.InitialResourceVersions = make(map[string]string)
			names := false
			for _, a := range args[1:] {
				if n, v, ok := strings.Cut(a, "="); ok && !names {
					req.InitialResourceVersions[n] = v
				} else if a == ":" {
					names = true
				} else {
					req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, a)
				}
			}
		case "ack":
			req.ResponseNonce = nonces[args[0]]
		case "nack":
			req.ResponseNonce = nonces[args[0]]
			req.ErrorDetail = &rpcstatus.Status{Message: strings.Join(args[1:], " ")}
		case "wait":
			d, err := time.ParseDuration(args[0])
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
			req = nil
		case "settled":
			if got := fmt.Sprint(s.Settled()); got != args[0] {
				t.Fatalf("settled %s, want %s", got, args[0])
			}
			continue
		default:
			t.Fatalf("unknown command %q", line)
		}
		if req != nil {
			if err := s.Request(req, now); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		for _, r := range s.Next(now) {
			nonces[shortType(r.TypeURL)] = r.Nonce
			got = append(got, describe(r))
		}
	}
	check("the end")
}

func update(t testing.TB, cache *Cache, line string) {
	var set []*Resource
	var remove []Key
	for part := range strings.SplitSeq(line, "; ") {
		fields := strings.Fields(part)
		for _, f := range fields[1:] {
			if fields[0] == "set" {
				set = append(set, testResource(t, f))
			} else {
				remove = append(remove, testKey(f))
			}
		}
	}
	cache.Update(set, remove)
}

func describe(r *Response) string {
	out := []string{"<", shortType(r.TypeURL)}
	for _, res := range r.Resources {
		out = append(out, "+"+res.Name+"="+res.Version)
	}
	removed := slices.Clone(r.Removed)
	slices.Sort(removed)
	for _, name := range removed {
		out = append(out, "-"+name)
	}
	return strings.Join(out, " ")
}

func TestStream(t *testing.T) {
	for _, tc := range []struct {
		name  string
		proxy Proxy
		pace  Pace
		text  string
	}{
		{name: "an Envoy starts", text: `
			set cds/a=1,eds/a eds/a=1 lds/in=1 rds/r=1
			sub cds
			< cds +a=1
			sub lds
			sub eds a
			< eds +a=1
			settled 0
			ack cds
			ack eds
			< lds +in=1
			sub rds r
			ack lds
			< rds +r=1
			ack rds
			settled 1
		`},
		{name: "make before break", text: `
			set cds/a=1,eds/a eds/a=1 rds/r=1
			sub cds
			< cds +a=1
			sub eds a
			< eds +a=1
			ack eds
			ack cds
			sub rds r
			< rds +r=1
			ack rds
			set cds/b=1,eds/b eds/b=1 rds/r=2; del cds/a eds/a
			< cds +b=1
			sub eds b
			< eds +b=1
			ack eds
			ack cds
			< rds +r=2
			settled 1
			ack rds
			< cds -a
			unsub eds a
			ack cds
			settled 2
		`},
		{name: "routes wait until endpoints are subscribed, but not for ever", pace: Pace{Patience: 3 * time.Second}, text: `
			set rds/r=1
			sub cds
			sub eds
			sub rds r
			< rds +r=1
			ack rds
			set cds/a=1,eds/a eds/a=1 rds/r=2
			< cds +a=1
			ack cds
			wait 2s
			wait 1s
			< rds +r=2
			ack rds
			settled 2
			sub eds a
			< eds +a=1
		`},
		{name: "a listener is settled with its routes", pace: Pace{Patience: 3 * time.Second}, text: `
			set rds/old=1
			sub lds
			sub rds old
			< rds +old=1
			ack rds
			settled 1
			set lds/in=1,rds/r rds/r=1
			< lds +in=1
			ack lds
			settled 1
			sub rds r
			< rds +r=1
			settled 1
			ack rds
			settled 2
			set lds/in=2,rds/r
			< lds +in=2
			ack lds
			settled 3
			set lds/out=1,rds/never
			< lds +out=1
			ack lds
			wait 2s
			settled 3
			wait 1s
			settled 4
		`},
		{name: "a refused listener awaits no routes", pace: Pace{Patience: time.Hour}, text: `
			sub lds
			set lds/in=1,rds/r
			< lds +in=1
			nack lds Error adding/updating listener(s) in: no
			settled 1
			set lds/in=2,rds/r
			< lds +in=2
			ack lds
			settled 1
		`},
		{name: "endpoints follow a changed cluster", text: `
			set cds/a=1,eds/a eds/a=1
			sub cds
			< cds +a=1
			sub eds a
			< eds +a=1
			ack eds
			ack cds
			set cds/a=2,eds/a
			< cds +a=2
			< eds +a=1
			set cds/b=1 eds/a=2
			ack eds
			< eds +a=2
			ack eds
			ack cds
			< cds +b=1
			ack cds
			settled 3
		`},
		{name: "newest state behind one response in flight", text: `
			set eds/a=1
			sub eds a
			< eds +a=1
			set eds/a=2
			set eds/a=3
			set eds/a=4
			ack eds
			< eds +a=4
			set eds/a=5
			set eds/a=4
			ack eds
			settled 6
		`},
		{name: "steady newer clusters do not hold back a route", text: `
			set rds/r=1
			sub rds r
			< rds +r=1
			sub cds
			set cds/a=1 rds/r=2
			< cds +a=1
			ack rds
			set cds/b=1
			ack cds
			< cds +b=1
			< rds +r=2
		`},
		{name: "reconnect sends only what changed", text: `
			set cds/a=2 cds/b=1 cds/new=1 eds/a=1
			resume cds a=1 b=1 gone=1
			< cds +a=2 +new=1
			resume eds a=1 : a
			ack cds
			< cds -gone
			ack cds
			settled 1
		`},
		{name: "wildcard and on demand on one stream", text: `
			set cds/a=1
			sub cds
			< cds +a=1
			ack cds
			sub cds nosuch
			< cds -nosuch
			ack cds
			sub cds a
			< cds +a=1
			ack cds
			set cds/nosuch=1
			< cds +nosuch=1
			ack cds
			unsub cds a
			< cds +a=1
			ack cds
		`},
		{name: "a first request with names is no wildcard", text: `
			set cds/a=1 cds/b=1
			sub cds b
			< cds +b=1
			ack cds
			sub cds *
			< cds +a=1
			ack cds
			unsub cds *
			set cds/a=2 cds/b=2
			< cds +b=2
		`},
		{name: "on demand a wildcard sees what is in its groups", proxy: Proxy{OnDemand: true, Groups: []string{"near"}}, text: `
			set cds/all=1 cds/near=1@near cds/far=1@far cds/both=1@far@near
			sub cds
			< cds +all=1 +both=1 +near=1
			ack cds
			settled 1
			set cds/far=2@far
			settled 2
			join far
			< cds +far=2
			ack cds
			settled 2
			asked
			leave near
			< cds -near
			ack cds
			leave far
			< cds -both -far
			ack cds
			set cds/near=2@near cds/all=2
			< cds +all=2
			ack cds
			settled 3
		`},
		{name: "a name that is asked for on demand brings its group", proxy: Proxy{OnDemand: true}, pace: Pace{Patience: 2 * time.Second}, text: `
			set cds/dst=1@far,lds/far cds/far=1@far@other,eds/far eds/far=1 lds/far=1@far,rds/far rds/far=1 cds/other=1@other
			sub cds
			sub lds
			sub cds dst
			< cds +far=1
			sub eds far
			< eds +far=1
			ack eds
			ack cds
			< lds +far=1
			sub rds far
			ack lds
			< rds +far=1
			ack rds
			< cds +dst=1
			ack cds
			asked far
			settled 1
		`},
		{name: "a name asked for on demand that is nothing is answered, and forgotten", proxy: Proxy{OnDemand: true}, text: `
			sub cds
			sub cds dst
			< cds -dst
			ack cds
			asked
			set cds/dst=1@far
			settled 1
			sub cds dst
			< cds +dst=1
			ack cds
			asked far
			leave far
			< cds -dst
			ack cds
			sub cds dst
			< cds +dst=1
		`},
		{name: "a client on demand keeps what it brings", proxy: Proxy{OnDemand: true}, text: `
			set cds/dst=1@far cds/back=1@back@far cds/near=1@near lds/far=1@far lds/near=1@near lds/back=1@back
			resume cds dst=1 back=1 :
			asked far
			resume lds far=1 :
			asked
			settled 1
		`},
		{name: "a resource that comes into a group is an addition", proxy: Proxy{OnDemand: true, Groups: []string{"near"}}, text: `
			set cds/back=1@back rds/near=1
			sub cds
			sub rds near
			< rds +near=1
			ack rds
			set cds/back=1@back@near rds/near=2
			< cds +back=1
			ack cds
			< rds +near=2
			ack rds
			set cds/back=1@back rds/near=3
			< rds +near=3
			ack rds
			< cds -back
			ack cds
			settled 3
		`},
		{name: "a cluster waits for the listener that it leads to, and not for ever", pace: Pace{Patience: 2 * time.Second}, text: `
			set cds/front=1,lds/l cds/c=1 lds/l=1
			sub cds
			< cds +c=1
			sub lds
			ack cds
			< lds +l=1
			wait 3s
			wait 1s
			< cds +front=1
			ack cds
			ack lds
			settled 1
		`},
		{name: "variants", proxy: Proxy{Variants: []string{"me", "zone"}}, text: `
			set dns/a=1 dns/a#other=9
			sub dns
			< dns +a=1
			ack dns
			set dns/a#zone=2
			< dns +a=2
			ack dns
			set dns/a=3
			settled 3
			set dns/a#other=8 dns/a#me=4
			< dns +a=4
			ack dns
			del dns/a#me dns/a#zone
			< dns +a=3
			ack dns
			del dns/a
			< dns -a
			ack dns
			settled 6
		`},
		{name: "a variant lost is a change of now", proxy: Proxy{Variants: []string{"me"}}, text: `
			set rds/r=1 rds/r#me=2
			sub cds
			sub rds r
			< rds +r=2
			ack rds
			set cds/a=1; del rds/r#me
			< cds +a=1
			ack cds
			< rds +r=1
		`},
		{name: "NACK that names its listener", text: `
			set lds/a=1 lds/b=1 lds/c=1
			sub lds
			< lds +a=1 +b=1 +c=1
			nack lds Error adding/updating listener(s) b: no such filter
			settled 1
			set lds/c=2
			< lds +c=2
			ack lds
			set lds/b=2
			< lds +b=2
			ack lds
			settled 3
		`},
		{name: "NACK that names nobody is halved", text: `
			set cds/a=1 cds/b=1 cds/c=1 cds/d=1 cds/e=1
			sub cds
			< cds +a=1 +b=1 +c=1 +d=1 +e=1
			nack cds Proto constraint validation failed
			< cds +a=1 +b=1
			ack cds
			< cds +c=1 +d=1 +e=1
			nack cds Proto constraint validation failed
			< cds +c=1
			ack cds
			< cds +d=1 +e=1
			nack cds Proto constraint validation failed
			< cds +d=1
			nack cds Proto constraint validation failed
			< cds +e=1
			ack cds
			settled 1
			set cds/d=2
			< cds +d=2
		`},
		{name: "a refused route keeps its clusters", text: `
			set cds/a=1 rds/r=1
			sub cds
			< cds +a=1
			sub rds r
			ack cds
			< rds +r=1
			ack rds
			set cds/b=1 rds/r=2; del cds/a
			< cds +b=1
			ack cds
			< rds +r=2
			nack rds bad regex
			settled 2
			set rds/r=3
			< rds +r=3
			ack rds
			< cds -a
			ack cds
			settled 3
		`},
		{name: "going back after a NACK sends nothing", text: `
			set rds/r=1
			sub rds r
			< rds +r=1
			ack rds
			set rds/r=2
			< rds +r=2
			nack rds bad
			set rds/r=1
			settled 3
			set rds/r=2
			< rds +r=2
		`},
		{name: "a removed cluster lingers", pace: Pace{Linger: 5 * time.Second}, text: `
			set cds/a=1
			sub cds
			< cds +a=1
			ack cds
			del cds/a
			settled 2
			wait 4s
			wait 1s
			< cds -a
		`},
		{name: "a stale nonce is no ACK, and subscriptions count at any time", text: `
			set eds/a=1 eds/b=1
			sub eds a
			< eds +a=1
			sub eds b
			ack eds
			< eds +b=1
			unsub eds b
			set eds/b=2
			ack eds
			settled 2
		`},
		{name: "subscribed again while in flight is sent again", text: `
			set eds/a=1
			sub eds a
			< eds +a=1
			unsub eds a
			sub eds a
			ack eds
			< eds +a=1
		`},
	} {
		t.Run(tc.name, func(t *testing.T) { script(t, tc.proxy, tc.pace, tc.text) })
	}
}

// TestTooManyNames ends the stream of a client that makes the server remember too much:
// names that it subscribes to, or asks for on demand and takes no answers about.
func TestTooManyNames(t *testing.T) {
	for _, onDemand := range []bool{false, true} {
		s := NewStream(NewCache(), Proxy{OnDemand: onDemand}, Pace{})
		if err := s.Request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType}, epoch); err != nil {
			t.Fatal(err)
		}
		asked := 0
		for err := error(nil); err == nil; {
			if asked > 2*maxNames {
				t.Fatalf("on demand %t: it takes %d names", onDemand, asked)
			}
			req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType}
			for range 10_000 {
				req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, fmt.Sprint("none-", asked))
				asked++
			}
			err = s.Request(req, epoch)
			s.Next(epoch)
		}
		if asked <= maxNames {
			t.Errorf("on demand %t: it takes no more than %d names", onDemand, asked)
		}
	}
}
