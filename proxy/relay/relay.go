package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/broadcast"
)

// Config is what a relay needs.
type Config struct {
	// Upstream is the connection to the control plane. It should have keepalive, to notice
	// a control plane that has vanished, and a short ConnectParams.Backoff.MaxDelay, to
	// notice one that is back.
	Upstream grpc.ClientConnInterface
	Dir      string // private folder for the last good configuration
	// Node, if set, replaces the node that Envoy says it is.
	Node func(*corev3.Node) *corev3.Node
	// Acked, if set, is called with the type URL when Envoy has ACKed a response, whoever
	// sent it. It must not block. An Envoy that reconnects with nothing to be told ACKs
	// nothing.
	Acked func(typ string)
	Log   *slog.Logger // nil: none
}

// Relay is Envoy's ADS server. The gRPC server it is registered with must be made with
// grpc.ForceServerCodecV2(xds.Codec()).
type Relay struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	config Config
	good   *good
	asks   chan string      // names of clusters that the control plane is to be asked for
	taken  broadcast.Signal // of what Envoy has taken

	mu      sync.Mutex // guards what follows
	up      int        // streams that the control plane serves
	synced  time.Time  // of the last answer of Envoy to the control plane
	retry   backoff
	retryAt time.Time // no attempt before
	unknown bool      // the control plane said last that it does not know us yet
	flying  int       // responses that Envoy has not answered
	landed  time.Time // when one last came, or was answered
}

// New makes a relay and loads what an earlier one has left.
func New(c Config) (*Relay, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Upstream == nil {
		return nil, errors.New("relay has no connection to the control plane")
	}
	g, err := openGood(c.Dir, c.Log)
	if err != nil {
		return nil, err
	}
	r := &Relay{config: c, good: g, asks: make(chan string)}
	if info, err := os.Stat(g.path); err == nil && len(g.held()) > 0 {
		r.synced = info.ModTime()
	}
	return r, nil
}

// Run saves what changes, until the context is done.
func (r *Relay) Run(ctx context.Context) error {
	r.good.run(ctx)
	return nil
}

// Save saves what has changed at once, if it can: Run leaves a moment between two saves.
// A relay that is killed afterwards comes back with no less than it holds now.
func (r *Relay) Save() { r.good.save() }

// Upstream tells whether the control plane serves Envoy right now.
func (r *Relay) Upstream() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up > 0
}

// Quiet tells whether Envoy has answered all that the control plane has sent, and for so long
// nothing more has come. What an Envoy needs comes in several steps, one upon the other's
// answer.
func (r *Relay) Quiet(d time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up == 0 || r.flying == 0 && time.Since(r.landed) >= d
}

// Synced is when Envoy last took something from the control plane; zero for never.
func (r *Relay) Synced() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.synced
}

// Held lists the last good configuration in order of type and name.
func (r *Relay) Held() []Held { return r.good.held() }

// localCache is the last good configuration as the local service needs it.
func (r *Relay) localCache() *xds.Cache {
	var set []*xds.Resource
	types := make(map[string]map[string]*anypb.Any)
	for _, h := range r.good.held() {
		if types[h.Type] == nil {
			types[h.Type] = r.good.messages(h.Type)
		}
		res, err := wrap(h, types[h.Type][h.Name])
		if err != nil {
			r.config.Log.Warn("a resource of the last good configuration cannot be used", "error", err)
			continue
		}
		set = append(set, res)
	}
	cache := xds.NewCache()
	cache.Update(set, nil)
	return cache
}

// wrap makes a cache resource of a held one. A cluster needs its endpoints.
func wrap(h Held, m *anypb.Any) (*xds.Resource, error) {
	key := xds.Key{Type: h.Type, Name: h.Name}
	var needs []xds.Key
	if h.Type == xds.ClusterType {
		c := new(clusterv3.Cluster)
		if err := proto.Unmarshal(m.GetValue(), c); err != nil {
			return nil, fmt.Errorf("decode %s: %w", key, err)
		}
		if c.GetType() == clusterv3.Cluster_EDS {
			name := c.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = c.GetName()
			}
			needs = append(needs, xds.Key{Type: xds.EndpointType, Name: name})
		}
	}
	return xds.NewEncoded(key, h.Version, m, nil, needs...)
}
