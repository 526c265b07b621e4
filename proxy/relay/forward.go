package relay

import (
	"context"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/xds"
)

const (
	// trialPeriod is how soon a stream must fail, without a response, to count as refused
	// by the control plane. Then there is a pause before the next attempt.
	trialPeriod = 5 * time.Second
	// unknownRetry is the longest pause where the control plane does not know us yet: it
	// learns of a pod from another server, at about the time that we do.
	unknownRetry = 500 * time.Millisecond
	// pruneAfter is when what Envoy has not taken on a stream is taken for gone. Until
	// then the memory of the stream before is kept, should the control plane go again.
	pruneAfter = 15 * time.Second
)

// forwarding is one stream between Envoy and the control plane, and what is to be
// learnt from it.
type forwarding struct {
	relay    *Relay
	flights  map[string]*discoveryv3.DeltaDiscoveryResponse // by type: sent to Envoy, not answered
	current  map[xds.Key]bool                               // what Envoy holds, as said on this stream
	started  map[string]bool                                // types
	answered bool                                           // the control plane has said something
	unknown  bool                                           // the control plane does not know us yet
}

// forward passes messages both ways until either end goes.
func (r *Relay) forward(ctx context.Context, d *downstream, up upstream) error {
	f := &forwarding{
		relay: r, flights: make(map[string]*discoveryv3.DeltaDiscoveryResponse),
		current: make(map[xds.Key]bool), started: make(map[string]bool),
	}
	began := time.Now()
	f.fly()
	r.count(+1)
	err := f.run(ctx, d, up)
	r.count(-1)
	if d.stream.Context().Err() != nil || status.Code(err) == codes.Canceled {
		return err // Envoy has gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case f.unknown:
		r.retryAt = time.Now().Add(min(r.retry.next(), unknownRetry))
	case !f.answered && time.Since(began) < trialPeriod:
		r.retryAt = time.Now().Add(r.retry.next())
	default:
		r.retry.reset()
	}
	if f.unknown && !r.unknown {
		r.config.Log.Info("the control plane does not know this workload yet, trying again")
	}
	r.unknown = f.unknown
	return err
}

func (r *Relay) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up += n
}

func (f *forwarding) run(ctx context.Context, d *downstream, up upstream) error {
	ctx, cancel := context.WithCancel(ctx)
	responses := make(chan *discoveryv3.DeltaDiscoveryResponse)
	lost := make(chan error, 1)
	go func() { // ends with the stream, which ends with this function's caller
		for {
			resp, err := up.Recv()
			if err != nil {
				lost <- err
				return
			}
			select {
			case responses <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer cancel()
	prune := time.NewTimer(pruneAfter)
	defer prune.Stop()
	for {
		asks := f.relay.asks
		if !f.started[xds.ClusterType] {
			asks = nil // the first request of a type says more than names
		}
		select {
		case name := <-asks:
			if err := up.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.ClusterType, ResourceNamesSubscribe: []string{name}}); err != nil {
				return f.lost(<-lost)
			}
		case req := <-d.requests:
			if err := up.Send(f.request(req)); err != nil {
				return f.lost(<-lost) // Send only says EOF
			}
		case resp := <-responses:
			f.answered = true
			f.flights[resp.GetTypeUrl()] = resp
			f.fly()
			if err := d.stream.Send(resp); err != nil {
				return err
			}
		case <-prune.C:
			f.prune()
		case err := <-lost:
			return f.lost(err)
		case err := <-d.ended:
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// fly notes how many responses Envoy has not answered.
func (f *forwarding) fly() {
	r := f.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying, r.landed = len(f.flights), time.Now()
}

// lost is what Envoy is told when the control plane has gone.
func (f *forwarding) lost(err error) error {
	if f.unknown = !f.answered && status.Code(err) == codes.FailedPrecondition; !f.unknown {
		f.relay.config.Log.Warn("control plane lost", "error", err)
	}
	return status.Error(codes.Unavailable, "control plane lost")
}

// request learns from what Envoy says, and returns what the control plane is told.
func (f *forwarding) request(req *discoveryv3.DeltaDiscoveryRequest) *discoveryv3.DeltaDiscoveryRequest {
	typ := req.GetTypeUrl()
	if req.Node != nil && f.relay.config.Node != nil {
		req.Node = f.relay.config.Node(req.Node)
	}
	if !f.started[typ] {
		f.started[typ] = true
		f.resume(req)
	}
	if flight := f.flights[typ]; flight != nil && flight.GetNonce() == req.GetResponseNonce() {
		delete(f.flights, typ)
		f.fly()
		f.learn(flight, req)
	}
	if gone := req.GetResourceNamesUnsubscribe(); len(gone) > 0 {
		for _, name := range gone {
			delete(f.current, xds.Key{Type: typ, Name: name})
		}
		f.relay.good.forget(typ, gone)
	}
	return req
}

// resume takes from the versions that Envoy holds those that are not in memory, so that
// the control plane sends them again and they can be remembered.
func (f *forwarding) resume(req *discoveryv3.DeltaDiscoveryRequest) {
	held := f.relay.good.versions(req.GetTypeUrl())
	for name, version := range req.GetInitialResourceVersions() {
		if held[name] == version {
			f.current[xds.Key{Type: req.GetTypeUrl(), Name: name}] = true
		} else {
			delete(req.InitialResourceVersions, name)
		}
	}
}

// learn remembers what Envoy has taken of a response.
func (f *forwarding) learn(resp *discoveryv3.DeltaDiscoveryResponse, answer *discoveryv3.DeltaDiscoveryRequest) {
	var bad []string
	if detail := answer.GetErrorDetail(); detail != nil {
		var names []string
		for _, res := range resp.GetResources() {
			names = append(names, res.GetName())
		}
		known := false
		if bad, known = xds.Blame(resp.GetTypeUrl(), detail.GetMessage(), names); !known {
			return // the control plane will send it again in parts
		}
	}
	typ := resp.GetTypeUrl()
	taken := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typ, RemovedResources: resp.GetRemovedResources()}
	for _, res := range resp.GetResources() {
		if !slices.Contains(bad, res.GetName()) && res.GetResource() != nil {
			taken.Resources = append(taken.Resources, res)
			f.current[xds.Key{Type: typ, Name: res.GetName()}] = true
		}
	}
	for _, name := range resp.GetRemovedResources() {
		delete(f.current, xds.Key{Type: typ, Name: name})
	}
	r := f.relay
	r.taken.Change(func() { r.good.apply(taken) })
	r.mu.Lock()
	r.synced = time.Now()
	r.mu.Unlock()
}

// prune forgets what Envoy does not hold any more, of the types it has asked for.
func (f *forwarding) prune() {
	if !f.answered {
		return
	}
	gone := make(map[string][]string)
	for _, h := range f.relay.good.held() {
		if f.started[h.Type] && !f.current[xds.Key{Type: h.Type, Name: h.Name}] {
			gone[h.Type] = append(gone[h.Type], h.Name)
		}
	}
	for typ, names := range gone {
		f.relay.good.forget(typ, names)
	}
}
