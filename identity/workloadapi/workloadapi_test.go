package workloadapi_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	spiffeclient "github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
	"github.com/heddle-mesh/heddle/identity/workloadapi"
)

// start runs a control plane, an agent, and the Workload API on a Unix socket.
func start(t *testing.T, options ...grpc.ServerOption) (cp *identitytest.ControlPlane, a *agent.Agent, socket string) {
	t.Helper()
	dir := t.TempDir()
	cp = identitytest.New(t, filepath.Join(dir, "cp"))
	cp.Start()
	id := identitytest.ID(t, "api")
	a, err := agent.New(agent.Config{ID: id, Dir: filepath.Join(dir, "agent"), Address: "cp", Token: cp.Token(id), DialContext: cp.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.Creds(attest.UnixCredentials()))...)
	workload.RegisterSpiffeWorkloadAPIServer(s, workloadapi.New(a, gospiffe.RequireTrustDomainFromString(identitytest.TrustDomain)))
	served, ran := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- s.Serve(listener) }()
	go func() { ran <- a.Run(ctx) }()
	t.Cleanup(func() { s.Stop(); cancel(); <-served; <-ran })
	return cp, a, socket
}

// watcher hands on what go-spiffe's client sees.
type watcher struct {
	t       *testing.T
	updates chan *spiffeclient.X509Context
}

func (w watcher) OnX509ContextUpdate(c *spiffeclient.X509Context) { w.updates <- c }
func (w watcher) OnX509ContextWatchError(err error) {
	if status.Code(err) != codes.Canceled {
		w.t.Error(err)
	}
}

func TestGoSPIFFEWatchesRotations(t *testing.T) {
	_, a, socket := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := spiffeclient.New(ctx, spiffeclient.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	w := watcher{t, make(chan *spiffeclient.X509Context)}
	watched := make(chan error, 1)
	go func() { watched <- client.WatchX509Context(ctx, w) }()

	seen := map[string]bool{}
	for range 3 {
		update := <-w.updates // the first waits for the agent's first SVID
		svid := update.DefaultSVID()
		if id, _, err := x509svid.Verify(svid.Certificates, update.Bundles); err != nil || id.String() != identitytest.ID(t, "api").String() {
			t.Fatalf("SVID of %v: %v", id, err)
		}
		seen[svid.Certificates[0].SerialNumber.String()] = true
		a.Renew()
	}
	if len(seen) != 3 {
		t.Errorf("%d different certificates in 3 updates", len(seen))
	}
	cancel()
	for watching := true; watching; {
		select {
		case <-w.updates:
		case <-watched:
			watching = false
		}
	}
}

func TestGoSPIFFEFetchesBundles(t *testing.T) {
	cp, _, socket := start(t)
	bundles, err := spiffeclient.FetchX509Bundles(t.Context(), spiffeclient.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundles.GetX509BundleForTrustDomain(cp.CA.TrustDomain())
	if err != nil || !got.Equal(cp.CA.Bundle()) {
		t.Errorf("bundle %v, %v", got, err)
	}
}

func TestRefusals(t *testing.T) {
	_, _, open := start(t)
	_, _, restricted := start(t, attest.RequireUID(uint32(os.Geteuid())+1)...)
	header := func(values ...string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), values...)
	}
	for _, tc := range []struct {
		name, socket string
		ctx          context.Context
		want         codes.Code
		text         string
	}{
		{"no header", open, t.Context(), codes.InvalidArgument, "workload.spiffe.io"},
		{"header of another value", open, header("workload.spiffe.io", "false"), codes.InvalidArgument, "workload.spiffe.io"},
		{"header twice", open, header("workload.spiffe.io", "true", "workload.spiffe.io", "false"), codes.InvalidArgument, "workload.spiffe.io"},
		{"another user", restricted, header("workload.spiffe.io", "true"), codes.PermissionDenied, "this process has uid"},
		{"good", open, header("workload.spiffe.io", "true"), codes.OK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := grpc.NewClient("unix:"+tc.socket, grpc.WithTransportCredentials(attest.UnixCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := workload.NewSpiffeWorkloadAPIClient(conn)
			svids, err := client.FetchX509SVID(tc.ctx, &workload.X509SVIDRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = svids.Recv()
			check(t, "FetchX509SVID", err, tc.want, tc.text)
			bundles, err := client.FetchX509Bundles(tc.ctx, &workload.X509BundlesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = bundles.Recv()
			check(t, "FetchX509Bundles", err, tc.want, tc.text)
			if tc.want == codes.OK {
				_, err = client.FetchJWTSVID(tc.ctx, &workload.JWTSVIDRequest{})
				check(t, "FetchJWTSVID", err, codes.Unimplemented, "")
			}
		})
	}
}

func check(t *testing.T, method string, err error, want codes.Code, text string) {
	t.Helper()
	if status.Code(err) != want || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %v with %q", method, err, want, text)
	}
}
