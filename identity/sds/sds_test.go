package sds_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/sds"
)

// client serves SDS in memory and connects to it.
func client(t *testing.T, source sds.Source, log *slog.Logger) secretv3.SecretDiscoveryServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(s, sds.New(source, gospiffe.RequireTrustDomainFromString(identitytest.TrustDomain), log))
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() { s.Stop(); <-done })
	conn, err := grpc.NewClient("passthrough:///sds", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return secretv3.NewSecretDiscoveryServiceClient(conn)
}

// deltaStream reads responses as they come, so that a test can ask what has come.
type deltaStream struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	got    chan *discoveryv3.DeltaDiscoveryResponse
}

func newDeltaStream(t *testing.T, c secretv3.SecretDiscoveryServiceClient) *deltaStream {
	t.Helper()
	stream, err := c.DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := &deltaStream{t, stream, make(chan *discoveryv3.DeltaDiscoveryResponse, 100)}
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				return
			}
			d.got <- response
		}
	}()
	return d
}

// exchange sends a request and returns what has come when everything is quiet.
func (d *deltaStream) exchange(request *discoveryv3.DeltaDiscoveryRequest) []*discoveryv3.DeltaDiscoveryResponse {
	d.t.Helper()
	if request != nil {
		if err := d.stream.Send(request); err != nil {
			d.t.Fatal(err)
		}
	}
	synctest.Wait()
	var all []*discoveryv3.DeltaDiscoveryResponse
	for len(d.got) > 0 {
		all = append(all, <-d.got)
	}
	return all
}

func (d *deltaStream) exchangeOne(request *discoveryv3.DeltaDiscoveryRequest) *discoveryv3.DeltaDiscoveryResponse {
	d.t.Helper()
	all := d.exchange(request)
	if len(all) != 1 {
		d.t.Fatalf("%d responses, want 1", len(all))
	}
	return all[0]
}

func (d *deltaStream) wantQuiet(request *discoveryv3.DeltaDiscoveryRequest, why string) {
	d.t.Helper()
	if all := d.exchange(request); len(all) != 0 {
		d.t.Errorf("%s: %d responses, want none", why, len(all))
	}
}

func rotate(a *agent.Agent) {
	updated := a.Updated()
	a.Renew()
	<-updated
}

func TestDeltaProtocol(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		a := startAgent(t, cp, filepath.Join(dir, "agent"))
		var log bytes.Buffer
		d := newDeltaStream(t, client(t, a, slog.New(slog.NewTextHandler(&log, nil))))

		first := d.exchangeOne(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{sds.SVIDName, sds.BundleName, "unknown"}})
		if len(first.GetResources()) != 2 {
			t.Fatalf("%d secrets at first, want 2", len(first.GetResources()))
		}
		rotate(a)
		rotate(a)
		d.wantQuiet(nil, "rotations while a response is out")
		second := d.exchangeOne(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: first.GetNonce()})
		if names := second.GetResources(); len(names) != 1 || names[0].GetName() != sds.SVIDName {
			t.Errorf("after rotations: %v, want the SVID only", names)
		}
		d.wantQuiet(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "stale"}, "a stale nonce")
		refusal := &rpcstatus.Status{Code: 13, Message: "bad -----BEGIN PRIVATE KEY----- xyzzy"}
		d.wantQuiet(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: second.GetNonce(), ErrorDetail: refusal}, "a refusal")
		if !strings.Contains(log.String(), "refused") || strings.Contains(log.String(), "xyzzy") {
			t.Errorf("log of the refusal: %s", &log)
		}
		rotate(a)
		third := d.exchangeOne(nil)
		d.wantQuiet(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: third.GetNonce()}, "all acknowledged")

		again := newDeltaStream(t, d.reconnect(a))
		versions := map[string]string{sds.SVIDName: third.GetResources()[0].GetVersion()}
		response := again.exchangeOne(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{sds.SVIDName, sds.BundleName}, InitialResourceVersions: versions})
		if names := response.GetResources(); len(names) != 1 || names[0].GetName() != sds.BundleName {
			t.Errorf("after a reconnect: %v, want the bundle only", names)
		}
	})
}

func (d *deltaStream) reconnect(a *agent.Agent) secretv3.SecretDiscoveryServiceClient {
	if err := d.stream.CloseSend(); err != nil {
		d.t.Error(err)
	}
	return client(d.t, a, nil)
}

func TestStateOfTheWorldAndFetch(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cp := identitytest.New(t, filepath.Join(dir, "cp"))
		cp.Start()
		a := startAgent(t, cp, filepath.Join(dir, "agent"))
		c := client(t, a, nil)
		stream, err := c.StreamSecrets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		request := &discoveryv3.DiscoveryRequest{ResourceNames: []string{sds.SVIDName}}
		keys := map[string]bool{}
		for range 3 {
			if err := stream.Send(request); err != nil {
				t.Fatal(err)
			}
			response, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			var secret tlsv3.Secret
			if err := response.GetResources()[0].UnmarshalTo(&secret); err != nil {
				t.Fatal(err)
			}
			keys[string(secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes())] = true
			request.ResponseNonce, request.VersionInfo = response.GetNonce(), response.GetVersionInfo()
			rotate(a)
		}
		if len(keys) != 3 {
			t.Errorf("%d different keys in 3 rotations", len(keys))
		}
		if _, err := c.FetchSecrets(t.Context(), request); status.Code(err) != codes.Unimplemented {
			t.Errorf("FetchSecrets: %v", err)
		}
	})
}
