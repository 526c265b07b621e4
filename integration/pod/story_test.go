package pod

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// TestPods tells the life of two pods.
func TestPods(t *testing.T) {
	inSandbox(t, func(t *testing.T) {
		w := newWorld(t, dual)
		w.startTogether()
		w.traffic()
		w.names()
		w.strangers()
		w.kubelet()
		w.metrics()
		w.workloadAPI()
		w.envoyCrashes()
		w.startsWithoutControlPlane()
		w.ends()
		for _, p := range []*pod{w.web, w.api} {
			if strings.Contains(p.log.String(), secret) {
				t.Errorf("%s told its token:\n%s", p.name, p.log.String())
			}
		}
	})
}

// startTogether: the control plane sees pod api later than api's agent is there.
func (w *world) startTogether() {
	began := time.Now()
	w.web.start(w.plane)
	w.web.awaitReady()
	w.Logf("web was ready after %s", time.Since(began).Round(time.Millisecond))
	w.api.start(w.plane, "HEDDLE_PROBES="+probes)
	await(w.T, "api's agent was turned away", func() error {
		return want(strings.Contains(w.api.log.String(), "is not registered"), true)
	})
	if code, why := w.api.kubelet("/ready"); code != 503 {
		w.Errorf("ready before it is known: %d %s", code, why)
	}
	w.plane.set(w.workload(w.api))
	w.api.awaitReady()
	if n := strings.Count(w.api.log.String(), "is not registered"); n != 1 {
		w.Errorf("told %d times that it is not known", n)
	}
	s := w.web.status()
	w.Logf("memory: agent (%s), Envoy (%s)", memory(w.web.proxy.Process.Pid), memory(s.Envoy.PID))
}

// traffic: by mutual TLS, of both families, to an application at the pod's address alone.
func (w *world) traffic() {
	for _, vip := range w.vips {
		await(w.T, "web reaches api at "+vip.String(), func() error {
			code, body := w.call(vip, "/hello")
			if code != 200 || !strings.HasPrefix(body, "api-5d6b /hello ") || !strings.Contains(body, "URI=spiffe://pods.example/ns/default/sa/web") {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
	}
}

// names: the mesh's are answered beside the cluster's, which stay as they are.
func (w *world) names() {
	ours := "NOERROR"
	if w.vips[0].Is4() {
		ours += " 10.96.0.7"
	}
	for name, answer := range map[string]string{
		"api.default.svc.cluster.local.":             ours,
		"unmeshed.default.svc.cluster.local.":        "NOERROR 10.96.0.99",
		"1-2-3-4.default.pod.cluster.local.":         "NOERROR 1.2.3.4",
		"outside.example.":                           "NOERROR 192.0.2.1",
		"outside.example.default.svc.cluster.local.": "NXDOMAIN",
		"api.": "NXDOMAIN",
		"heddle-controlplane.heddle-system.svc.elsewhere.": "NXDOMAIN",
	} {
		if got := w.web.resolve(name); got != answer {
			w.Errorf("%s: %s, want %s", name, got, answer)
		}
	}
}

// strangers: without mutual TLS only an excluded port is reached.
func (w *world) strangers() {
	for _, ip := range w.api.ips {
		at := netip.AddrPortFrom(ip, 8080).String()
		conn, err := net.Dial("tcp", at)
		if err != nil {
			w.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		if answer, err := io.ReadAll(conn); len(answer) > 0 || os.IsTimeout(err) {
			w.Errorf("plaintext to %s is answered with %q, %v", at, answer, err)
		}
		conn.Close()
		at = netip.AddrPortFrom(ip, 9090).String()
		if code, body := get(&net.Dialer{}, "http://"+at+"/"); code != 200 || body != `api-5d6b / called by ""` {
			w.Errorf("an excluded port: %d %s", code, body)
		}
	}
}

// kubelet: probes of every kind, from the node.
func (w *world) kubelet() {
	for path, answer := range map[string]string{
		"/probe/app/liveness":   "200 ok",
		"/probe/app/startup":    "200 ok",
		"/probe/app/readiness":  "200 ok",
		"/probe/tcp/liveness":   "200 ok",
		"/probe/ill/liveness":   "503 HTTP probe failed with statuscode: 500",
		"/probe/gone/liveness":  "503 dial tcp " + w.source() + "->" + netip.AddrPortFrom(w.api.ips[0], 1).String() + ": connect: connection refused",
		"/probe/other/liveness": `503 Get "http://127.0.0.1:8080/": dial tcp 127.0.0.1:8080: connect: connection refused`,
		"/probe/none/liveness":  "404 there is no such probe",
	} {
		code, body := w.api.kubelet(path)
		if got := fmt.Sprint(code, " ", body); got != answer {
			w.Errorf("%s: %s, want %s", path, got, answer)
		}
	}
	w.app.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	if code, body := w.api.kubelet("/probe/app/readiness"); code != 503 || !strings.Contains(body, "NOT_SERVING") {
		w.Errorf("an application that does not serve: %d %s", code, body)
	}
}

// source is from where the application is asked in the kubelet's place.
func (w *world) source() string {
	if w.api.ips[0].Is6() {
		return "[::6]:0"
	}
	return "127.0.0.6:0"
}

// metrics: Envoy's and the agent's, on one port.
func (w *world) metrics() {
	code, body := get(&net.Dialer{}, "http://"+netip.AddrPortFrom(w.api.ips[0], 15020).String()+"/metrics")
	for _, name := range []string{"heddle_svid_expiry_timestamp_seconds", "envoy_http_downstream_rq_total"} {
		if code != 200 || !strings.Contains(body, name) {
			w.Errorf("metrics: %d, without %s", code, name)
		}
	}
}

// workloadAPI: the application gets the pod's SVID, whatever its user.
func (w *world) workloadAPI() {
	socket := filepath.Join(w.api.dir, "app", "workload.sock")
	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			w.Errorf("%s: %v, %v, want mode %o", path, info.Mode(), err, mode)
		}
	}
	svid, err := workloadapi.FetchX509SVID(w.Context(), workloadapi.WithAddr("unix://"+socket))
	if err != nil || svid.ID.String() != "spiffe://pods.example/ns/default/sa/api" {
		w.Errorf("%v, %v", svid, err)
	}
}

// envoyCrashes: the agent starts it again.
func (w *world) envoyCrashes() {
	before := w.api.status().Envoy
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
	await(w.T, "Envoy is started again", func() error { return want(w.api.status().Envoy.Restarts, before.Restarts+1) })
	w.api.awaitReady()
	w.traffic()
}

// startsWithoutControlPlane: a container that is started anew while the control plane is
// away has what its volume keeps.
func (w *world) startsWithoutControlPlane() {
	w.plane.stop()
	w.api.kill()
	w.api.start(w.plane, "HEDDLE_PROBES="+probes)
	w.api.awaitReady()
	w.traffic()
	if s := w.api.status(); s.ControlPlane {
		w.Error("it says that it has a control plane")
	}
	w.plane.start()
	await(w.T, "api is connected again", func() error { return want(w.api.status().ControlPlane, true) })
	w.traffic()
}

// ends: an open request ends before its proxy does, and then the proxy does not wait.
func (w *world) ends() {
	answered := make(chan string)
	go func() {
		code, body := w.call(w.vips[0], "/slow")
		answered <- fmt.Sprint(code, " ", strings.Fields(body)[:2])
	}()
	<-w.app.asked
	exit := w.api.terminate()
	await(w.T, "the end has begun", func() error {
		code, _ := w.api.kubelet("/ready")
		return want(code, 503)
	})
	w.app.answer <- struct{}{}
	if got := <-answered; got != "200 [api-5d6b /slow]" {
		w.Errorf("the open request was answered %s", got)
	}
	if code := exit(); code != 0 {
		w.Errorf("exit code %d", code)
	}
	if code := w.web.terminate()(); code != 0 {
		w.Errorf("exit code %d", code)
	}
}
