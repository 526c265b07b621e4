package server_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/internal/identitytest"
)

const (
	fleet       = 10_000 // workloads that start together
	fleetID     = "spiffe://" + identitytest.TrustDomain + "/ns/default/sa/api"
	fleetSocket = "HEDDLE_BENCH_SOCKET" // makes this program a fleet, of the control plane there
	fleetToken  = "HEDDLE_BENCH_TOKEN"
	fleetShares = "HEDDLE_BENCH_SHARES" // one connection for all
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(fleetSocket); socket != "" {
		if err := runFleet(socket, os.Getenv(fleetToken), os.Getenv(fleetShares) != ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BenchmarkFleet has 10,000 workloads get an SVID through the real service, on a Unix
// socket. One op is all of them. The workloads are another process, which has made their
// requests beforehand, so the CPU time is the server's alone: gRPC, the kernel's part of
// the socket, attestation, checks, signing and garbage collection.
func BenchmarkFleet(b *testing.B) {
	for _, mode := range []struct{ name, shares string }{{"connection=each", ""}, {"connection=one", "yes"}} {
		b.Run(mode.name, func(b *testing.B) {
			var cpu time.Duration
			b.StopTimer()
			for range b.N {
				cpu += serveFleet(b, mode.shares)
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N*fleet), "cpu-us/svid")
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// serveFleet serves one fleet and gives the CPU time that this process has taken for it.
func serveFleet(b *testing.B, shares string) time.Duration {
	b.Helper()
	dir, err := os.MkdirTemp("", "fleet") // short, for the limit on socket paths
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	cp := identitytest.New(b, filepath.Join(dir, "cp"))
	socket := filepath.Join(dir, "s")
	cp.StartUnix(socket)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fleetSocket+"="+socket, fleetToken+"="+cp.Token(identitytest.ID(b, "api")).Reveal(), fleetShares+"="+shares)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	expect := func(want string) {
		b.Helper()
		if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
			b.Fatalf("the fleet says %q, not %q: %v", line, want, errors.Join(err, cmd.Wait()))
		}
	}
	expect("ready")
	before := cpuTime(b)
	b.StartTimer()
	io.WriteString(in, "go\n")
	expect(fmt.Sprint(fleet))
	b.StopTimer()
	spent := cpuTime(b) - before
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return spent
}

// cpuTime is what this process has used, in user space and in the kernel.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// runFleet makes its requests, says that it is ready, and sends them when it is told to.
func runFleet(socket, token string, share bool) error {
	requests, err := fleetRequests()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	connect := func() (*grpc.ClientConn, error) {
		return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(attest.UnixCredentials()))
	}
	shared, err := connect()
	if err != nil {
		return err
	}
	defer shared.Close()
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(100)
	for _, csr := range requests {
		group.Go(func() error {
			conn := shared
			if !share {
				own, err := connect()
				if err != nil {
					return err
				}
				defer own.Close()
				conn = own
			}
			_, err := identityv1.NewIdentityClient(conn).SignSVID(ctx, &identityv1.SignSVIDRequest{
				Csr: csr, JoinToken: token, Namespace: "default", Service: "api",
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Println(len(requests))
	return nil
}

// fleetRequests are signing requests, each of a key of its own.
func fleetRequests() ([][]byte, error) {
	uri, err := url.Parse(fleetID)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for range fleet {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
		if err != nil {
			return nil, err
		}
		out = append(out, csr)
	}
	return out, nil
}
