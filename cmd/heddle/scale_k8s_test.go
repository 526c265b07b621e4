//go:build k8s

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
)

type m map[string]any

// TestControlPlaneScale starts a control plane on a cluster of 1,000 Services and 5,000
// endpoints, half of them pods of the mesh, and reports how long it takes to be ready and
// what memory it holds.
func TestControlPlaneScale(t *testing.T) {
	const services, each = 1000, 5
	dir := t.TempDir()
	server, err := kubetest.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	fill(t, server, services, each)
	cp := startOnCluster(t, server, dir)
	t.Logf("ready after %.2f s", cp.took.Seconds())
	have := get(t, "http://"+cp.metrics+"/metrics")
	for _, want := range []string{fmt.Sprintf("heddle_mesh_services %d", services+1), fmt.Sprintf("heddle_mesh_workloads %d", services*each/2)} {
		if !strings.Contains(have, want) { // and the API server's own Service
			t.Errorf("the metrics lack %q", want)
		}
	}
	cp.logMemory()
}

// onCluster is a control plane's process on a cluster.
type onCluster struct {
	t               *testing.T
	pid             int
	listen, metrics string        // addresses
	took            time.Duration // until it was ready
}

// startOnCluster starts a control plane, and waits until it is ready.
func startOnCluster(t *testing.T, server *kubetest.Server, dir string) *onCluster {
	t.Helper()
	program := filepath.Join(dir, "heddle")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cp := &onCluster{t: t, listen: freeAddress(t), metrics: freeAddress(t)}
	began := time.Now()
	cmd := exec.Command(program, "controlplane", "--kubernetes", "--kubeconfig="+kubeconfig(t, dir, server.Admin()), "--mesh-namespace=default",
		"--state="+filepath.Join(dir, "state"), "--listen="+cp.listen, "--metrics="+cp.metrics)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cp.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	for !ok(t.Context(), "http://"+cp.metrics+"/readyz") {
		if time.Since(began) > 2*time.Minute {
			t.Fatal("the control plane does not become ready")
		}
		time.Sleep(10 * time.Millisecond)
	}
	cp.took = time.Since(began)
	return cp
}

func (cp *onCluster) logMemory() {
	cp.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cp.pid))
	if err != nil {
		cp.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "VmHWM") {
			cp.t.Log(strings.Join(strings.Fields(line), " "))
		}
	}
}

// fill makes services with slices and pods; of the pods every other has a sidecar.
func fill(t *testing.T, server *kubetest.Server, services, each int) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	do := func(method, path string, body any) error { return server.Do(t.Context(), method, path, body, nil) }
	for i := range services {
		group.Go(func() error {
			name := fmt.Sprintf("s%d", i)
			var endpoints []m
			for j := range each {
				pod, ip := fmt.Sprintf("%s-%d", name, j), fmt.Sprintf("10.%d.%d.%d", 100+i/250, i%250, j+1)
				spec := m{"nodeName": "n1", "serviceAccountName": "default", "containers": []m{{"name": "app", "image": "x"}}}
				meta := m{"name": pod, "labels": m{"app": name}}
				if (i*each+j)%2 == 0 {
					meta["annotations"] = m{"heddle.dev/injected": "default"}
					spec["initContainers"] = []m{{"name": "heddle-proxy", "image": "x", "restartPolicy": "Always"}}
				}
				var made struct{ Metadata struct{ UID string } }
				if err := server.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/pods", m{"metadata": meta, "spec": spec}, &made); err != nil {
					return err
				}
				if err := do(http.MethodPatch, "/api/v1/namespaces/default/pods/"+pod+"/status", m{"status": m{"phase": "Running", "podIP": ip, "podIPs": []m{{"ip": ip}}}}); err != nil {
					return err
				}
				endpoints = append(endpoints, m{"addresses": []string{ip}, "targetRef": m{"kind": "Pod", "namespace": "default", "name": pod, "uid": made.Metadata.UID}})
			}
			if err := do(http.MethodPost, "/api/v1/namespaces/default/services", m{"metadata": m{"name": name}, "spec": m{"ports": []m{{"name": "http", "port": 80}}}}); err != nil {
				return err
			}
			return do(http.MethodPost, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", m{
				"metadata": m{"name": name, "labels": m{"kubernetes.io/service-name": name}}, "addressType": "IPv4",
				"ports": []m{{"name": "http", "port": 8080}}, "endpoints": endpoints,
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func kubeconfig(t *testing.T, dir string, c *rest.Config) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData, CertificateAuthority: c.CAFile, TLSServerName: c.ServerName}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func ok(ctx context.Context, url string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
