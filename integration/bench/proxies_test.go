package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/identity/channel"
)

// simulation is the first order to the process of simulated proxies.
type simulation struct {
	Address string
	Root    []byte // certificate
	Proxies []proxyOrder
}

// proxyOrder describes one proxy.
type proxyOrder struct {
	Node  string
	Chain [][]byte
	Key   []byte
	Uses  []string // clusters by their names, if it asks for them and not for all
}

// connectOrder has all proxies connect, anew or with what they held before they were
// disconnected. The answer is what they sent in bytes, when each holds the endpoints and
// routes of so many services, or has asked for what it holds.
type connectOrder struct {
	Disconnect bool // do only that
	Resume     bool
	Services   int
}

// simulate is the process of simulated proxies. They ask for what Envoy asks for, in the
// order in which it does, each over a connection of its own with its own SVID; of what
// they get they keep names and versions.
func simulate([]string) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var s simulation
	if err := in.Decode(&s); err != nil {
		return err
	}
	var proxies []*simulated
	for _, o := range s.Proxies {
		p, err := newSimulated(s, o)
		if err != nil {
			return err
		}
		proxies = append(proxies, p)
	}
	for {
		var order connectOrder
		if err := in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		sent, err := obey(proxies, order)
		if err != nil {
			return err
		}
		if err := out.Encode(sent); err != nil {
			return err
		}
	}
}

func obey(proxies []*simulated, order connectOrder) (sent int, err error) {
	var group sync.WaitGroup
	errs := make([]error, len(proxies))
	for i, p := range proxies {
		group.Go(func() {
			if order.Disconnect {
				p.disconnect()
				return
			}
			errs[i] = p.connect(order)
		})
	}
	group.Wait()
	for _, p := range proxies {
		sent += p.sent
	}
	return sent, errors.Join(errs...)
}

// types are what a proxy holds, in the order in which Envoy asks for them.
var types = []string{translate.ClusterType, translate.EndpointsType, translate.ListenerType, translate.RoutesType}

// simulated is one proxy.
type simulated struct {
	order   proxyOrder
	address string
	tls     *tls.Config
	held    map[string]map[string]string // versions by type and name

	conn   *grpc.ClientConn
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	asked  map[string]bool
	sent   int
	gone   chan struct{} // closed when the stream has ended
}

func newSimulated(s simulation, o proxyOrder) (*simulated, error) {
	bundle, err := x509bundle.ParseRaw(gospiffe.RequireTrustDomainFromString(trustDomain), s.Root)
	if err != nil {
		return nil, err
	}
	svid, err := x509svid.ParseRaw(slices.Concat(o.Chain...), o.Key)
	if err != nil {
		return nil, err
	}
	server, err := channel.ControlPlane(trustDomain)
	if err != nil {
		return nil, err
	}
	config, err := channel.Client(svid, bundle, server)
	return &simulated{order: o, address: s.Address, tls: config}, err
}

func (p *simulated) disconnect() {
	p.conn.Close()
	<-p.gone
}

// connect opens a stream, takes what comes until there is enough, and goes on taking.
func (p *simulated) connect(order connectOrder) (err error) {
	p.conn, err = grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(p.tls)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	if p.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(p.conn).DeltaAggregatedResources(context.Background()); err != nil {
		return err
	}
	p.asked, p.sent, p.gone = map[string]bool{}, 0, make(chan struct{})
	if !order.Resume {
		p.held = map[string]map[string]string{}
		for _, t := range types {
			p.held[t] = map[string]string{}
		}
		if err := p.subscribe(translate.ClusterType, p.order.Uses); err != nil {
			return err
		}
		for len(p.held[translate.EndpointsType]) < order.Services || len(p.held[translate.RoutesType]) < order.Services {
			if err := p.take(); err != nil {
				return err
			}
		}
	} else if err := p.resume(); err != nil {
		return err
	}
	go func() {
		defer close(p.gone)
		for p.take() == nil {
		}
	}()
	return nil
}

// take takes one response, ACKs it, and asks for what depends on it.
func (p *simulated) take() error {
	r, err := p.stream.Recv()
	if err != nil {
		return err
	}
	var fresh []string
	held := p.held[r.GetTypeUrl()]
	for _, res := range r.GetResources() {
		if _, ok := held[res.GetName()]; !ok {
			fresh = append(fresh, res.GetName())
		}
		held[res.GetName()] = res.GetVersion()
	}
	for _, name := range r.GetRemovedResources() {
		delete(held, name)
	}
	// Envoy asks for a cluster's endpoints before it ACKs the cluster.
	if r.GetTypeUrl() == translate.ClusterType {
		if err := p.subscribe(translate.EndpointsType, ports(fresh)); err != nil {
			return err
		}
	}
	if err := p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}); err != nil {
		return err
	}
	switch r.GetTypeUrl() {
	case translate.EndpointsType:
		if p.asked[translate.ListenerType] || len(held) < len(ports(slices.Collect(maps.Keys(p.held[translate.ClusterType])))) {
			return nil
		}
		return p.subscribe(translate.ListenerType, ports(p.order.Uses))
	case translate.ListenerType:
		return p.subscribe(translate.RoutesType, ports(fresh))
	}
	return nil
}

// resume asks for all that the proxy holds, as after a reconnect.
func (p *simulated) resume() error {
	names := map[string][]string{
		translate.ClusterType: p.order.Uses, translate.ListenerType: ports(p.order.Uses),
		translate.EndpointsType: slices.Collect(maps.Keys(p.held[translate.EndpointsType])),
		translate.RoutesType:    slices.Collect(maps.Keys(p.held[translate.RoutesType])),
	}
	for _, t := range types {
		if err := p.subscribe(t, names[t]); err != nil {
			return err
		}
	}
	return nil
}

// subscribe asks for names of a type, and in the first request tells what is held of it.
func (p *simulated) subscribe(typ string, names []string) error {
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesSubscribe: names}
	if !p.asked[typ] {
		p.asked[typ] = true
		r.Node, r.InitialResourceVersions = &corev3.Node{Id: p.order.Node}, p.held[typ]
	} else if len(names) == 0 {
		return nil
	}
	return p.send(r)
}

// ports are those names that are ports of services, which have endpoints, a listener and
// routes of the same name.
func ports(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !strings.Contains(name, ":") || strings.Contains(name, "|")
	})
}

func (p *simulated) send(r *discoveryv3.DeltaDiscoveryRequest) error {
	p.sent += proto.Size(r)
	if err := p.stream.Send(r); err != nil {
		return fmt.Errorf("%s: %w", p.order.Node, err)
	}
	return nil
}
