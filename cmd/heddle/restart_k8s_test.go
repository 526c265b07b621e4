//go:build k8s

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// TestManyPodsTogether has the sidecars of 500 pods start at once, lose their place with
// everything they had, and start at once again: each gets an identity by its own token and
// what its Envoy waits for, though the API server is asked about every token.
func TestManyPodsTogether(t *testing.T) {
	const pods = 500
	dir := t.TempDir()
	server, err := kubetest.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	if err := server.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/serviceaccounts", m{"metadata": m{"name": "default"}}, nil); err != nil {
		t.Fatal(err)
	}
	fill(t, server, 2*pods/5, 5) // every other pod is of the mesh
	cp := startOnCluster(t, server, dir)
	root := cp.root()
	for round, verb := range []string{"started", "started again"} {
		folder := filepath.Join(dir, fmt.Sprint("round", round))
		var sidecars []*simulated
		for i := range 2 * pods {
			if i%2 == 0 { // as fill has it
				sidecars = append(sidecars, newSimulated(t, server, cp.listen, root, folder, fmt.Sprintf("s%d-%d", i/5, i%5)))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cpu, began := cp.cpu(), time.Now()
		group, ctx := errgroup.WithContext(ctx)
		var served atomic.Int32
		for _, s := range sidecars {
			group.Go(func() error {
				if err := s.start(ctx); err != nil {
					return fmt.Errorf("%s: %w", s.pod, err)
				}
				served.Add(1)
				return nil
			})
		}
		err := group.Wait()
		t.Logf("%d of %d pods %s in %.1f s; the control plane took %s of CPU", served.Load(), pods, verb, time.Since(began).Seconds(), cp.cpu()-cpu)
		cancel()
		for _, s := range sidecars {
			s.end()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cp.logMemory()
}

// root is the fingerprint of the root that the control plane shows, as the injector has it.
func (cp *onCluster) root() attest.Fingerprint {
	cp.t.Helper()
	conn, err := tls.Dial("tcp", cp.listen, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // we look whom to trust
	if err != nil {
		cp.t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	return channel.FingerprintOf(chain[len(chain)-1])
}

// cpu is the processor time that the process has used.
func (cp *onCluster) cpu() time.Duration {
	cp.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cp.pid))
	if err != nil {
		cp.t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third of proc_pid_stat(5) on
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			cp.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// simulated is what a sidecar asks of the control plane until its Envoy serves.
type simulated struct {
	pod, listen string
	agent       *agent.Agent
	stop        context.CancelFunc
	conn        *grpc.ClientConn
}

// newSimulated makes the sidecar of a pod, with a token of the API server's for that pod.
func newSimulated(t *testing.T, server *kubetest.Server, listen string, root attest.Fingerprint, folder, pod string) *simulated {
	t.Helper()
	var made struct{ Metadata struct{ UID string } }
	if err := server.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/pods/"+pod, nil, &made); err != nil {
		t.Fatal(err)
	}
	var token struct{ Status struct{ Token string } }
	if err := server.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/serviceaccounts/default/token", m{"spec": m{
		"audiences": []string{"heddle"}, "expirationSeconds": 3600,
		"boundObjectRef": m{"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": made.Metadata.UID},
	}}, &token); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(folder, pod)
	file := filepath.Join(dir, "token")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, []byte(token.Status.Token), 0o600)); err != nil {
		t.Fatal(err)
	}
	id, err := spiffeid.New("mesh.local", "default", "default")
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{ID: id, Dir: filepath.Join(dir, "identity"), Address: listen, TokenFile: file, Roots: []attest.Fingerprint{root}})
	if err != nil {
		t.Fatal(err)
	}
	return &simulated{pod: pod, listen: listen, agent: a}
}

// start returns when the pod has an identity and the listener of its own side.
func (s *simulated) start(ctx context.Context) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go func() { _ = s.agent.Run(run) }()
	if err := s.agent.Ready(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	controlPlane, err := channel.ControlPlane("mesh.local")
	if err != nil {
		return err
	}
	config, err := channel.Client(s.agent, s.agent, controlPlane)
	if err != nil {
		return err
	}
	if s.conn, err = grpc.NewClient("passthrough:///"+s.listen, grpc.WithTransportCredentials(credentials.NewTLS(config))); err != nil {
		return err
	}
	client, err := xdstest.Open(run, s.conn, "default/"+s.pod)
	if err != nil {
		return err
	}
	broken := make(chan error, 1)
	go func() { broken <- client.Run() }()
	for _, typ := range []string{translate.ClusterType, translate.ListenerType} {
		if err := client.Subscribe(typ); err != nil {
			return err
		}
	}
	err = client.Wait(ctx, translate.ListenerType, func(held map[string]xdstest.Held) bool {
		_, ok := held[translate.InboundName]
		return ok
	})
	if err != nil {
		select {
		case why := <-broken:
			err = errors.Join(err, why)
		default:
		}
	}
	return err
}

func (s *simulated) end() {
	if s.stop != nil {
		s.stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
}
