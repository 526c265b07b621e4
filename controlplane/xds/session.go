package xds

import (
	"context"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// session is a connected client: a stream, and the goroutine that runs it.
type session struct {
	server *Server
	since  time.Time
	node   string
	poked  chan struct{} // holds an element when somebody else has changed the stream

	mu     sync.Mutex // guards stream, which the owner writes and status reads
	stream *Stream
}

// run alternates between taking what there is to take and sending what there is to
// send. A client that does not read blocks only its own session.
func (se *session) run(ctx context.Context, req *discoveryv3.DeltaDiscoveryRequest, requests <-chan *discoveryv3.DeltaDiscoveryRequest, ended <-chan error, send func(*Response) error) error {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		changed := se.server.config.Cache.Changed() // before looking
		responses, wake, err := se.step(req)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		for _, r := range responses {
			if err := se.push(r, send); err != nil {
				return err
			}
		}
		if !wake.IsZero() {
			alarm.Reset(time.Until(wake))
		} else {
			alarm.Stop()
		}
		select {
		case req = <-requests:
		case <-changed:
			req = nil
		case <-alarm.C:
			req = nil
		case <-se.poked:
			req = nil
		case err := <-ended:
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// step takes in a request, if there is one, and returns what to send.
func (se *session) step(req *discoveryv3.DeltaDiscoveryRequest) ([]*Response, time.Time, error) {
	now := time.Now()
	se.mu.Lock()
	before, revision := se.stream.counts, se.stream.settled
	if req != nil {
		se.server.config.Log.Debug("request", "id", se.stream.proxy.ID, "type", req.GetTypeUrl(), "nonce", req.GetResponseNonce(),
			"subscribe", len(req.GetResourceNamesSubscribe()), "unsubscribe", len(req.GetResourceNamesUnsubscribe()),
			"resumed", len(req.GetInitialResourceVersions()), "refused", req.GetErrorDetail() != nil)
		if err := se.stream.Request(req, now); err != nil {
			se.mu.Unlock()
			return nil, time.Time{}, err
		}
	}
	responses, asked := se.stream.Next(now), se.stream.Asked()
	wake, after, settled := se.stream.wake, se.stream.counts, se.stream.settled
	se.mu.Unlock()
	if f := se.server.config.Asked; f != nil && len(asked) > 0 {
		f(se.stream.proxy, asked)
	}

	if before != after || revision != settled {
		se.answered(req, before, after, settled)
	} else if req != nil {
		se.server.changed.fire() // a subscription
	}
	return responses, wake, nil
}

// answered tells the world of an ACK or NACK, or that a change did not concern the proxy.
func (se *session) answered(req *discoveryv3.DeltaDiscoveryRequest, before, after counts, settled uint64) {
	se.server.stats.Acks.Add(int64(after.acks - before.acks))
	if n := after.nacks - before.nacks; n > 0 {
		se.server.stats.Nacks.Add(int64(n))
		se.server.config.Log.Warn("proxy refused configuration",
			"id", se.stream.proxy.ID, "type", req.GetTypeUrl(), "error", errorText(req.GetErrorDetail()))
	}
	if f := se.server.config.Settled; f != nil {
		f(se.stream.proxy.ID, settled)
	}
	se.server.changed.fire()
}

func (se *session) push(r *Response, send func(*Response) error) error {
	se.server.config.Log.Debug("response", "id", se.stream.proxy.ID, "type", r.TypeURL, "nonce", r.Nonce,
		"rev", r.Version, "resources", len(r.Resources), "removed", len(r.Removed), "bytes", r.Size())
	st := &se.server.stats
	st.Responses.Add(1)
	st.Resources.Add(int64(len(r.Resources)))
	st.Removals.Add(int64(len(r.Removed)))
	st.Bytes.Add(int64(r.Size()))
	return send(r)
}
