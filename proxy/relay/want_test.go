package relay

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
)

// TestWant brings a service's clusters to a real Envoy that has not asked for them, and ends
// with its context where there is nothing to bring, or nobody who could.
func TestWant(t *testing.T) {
	dir := xdstest.Dir(t)
	ads := filepath.Join(dir, "ads.sock")
	cp := newControlPlane(t, dir)
	cp.connect = func(n *corev3.Node) xds.Proxy { return xds.Proxy{ID: n.GetId(), OnDemand: true} }
	cp.stop()
	cp.start()
	group := func(name string) {
		r, err := xds.NewResource(xds.Key{Type: xds.ClusterType, Name: name}, xdstest.Cluster(name, time.Second), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Groups = []string{"far"}
		e, err := xds.NewResource(xds.Key{Type: xds.EndpointType, Name: name}, xdstest.Endpoints(name, "/nowhere"), nil)
		if err != nil {
			t.Fatal(err)
		}
		cp.cache.Update([]*xds.Resource{r, e}, nil)
	}
	group("far-1")
	group("far-2")
	relay, _ := startRelay(t, cp.socket, filepath.Join(dir, "state"), ads)
	want := func(patience time.Duration, names ...string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return relay.Want(ctx, names...)
	}
	if want(50*time.Millisecond, "far-1") {
		t.Error("there is no Envoy, and it has taken something")
	}
	xdstest.StartEnvoy(t, "w", ads)
	if !want(10*time.Second, "far-1", "far-2") {
		t.Errorf("Envoy has not got them: %v", relay.Held())
	}
	if !want(0, "far-2") || !want(0) {
		t.Error("what is there is waited for")
	}
	if want(200*time.Millisecond, "far-1", "none") {
		t.Error("what does not exist has come")
	}
	cp.stop()
	xdstest.Eventually(t, "loss noticed", func() bool { return !relay.Upstream() })
	if !want(10*time.Second, "far-1") || want(100*time.Millisecond, "none") {
		t.Error("without a control plane: want what is there, and nothing else")
	}
}

// TestQuiet: it is quiet when Envoy has answered all, and nothing has come since for a while;
// and where there is no control plane, from which nothing comes.
func TestQuiet(t *testing.T) {
	dir := xdstest.Dir(t)
	ads := filepath.Join(dir, "ads.sock")
	cp := newControlPlane(t, dir)
	cp.set(xds.ClusterType, "a", xdstest.Cluster("a", time.Second))
	relay, _ := startRelay(t, cp.socket, filepath.Join(dir, "state"), ads)
	if !relay.Quiet(time.Hour) {
		t.Error("there is no Envoy, and something comes")
	}
	client, err := xdstest.Open(t.Context(), connect(t, ads), "w")
	if err != nil {
		t.Fatal(err)
	}
	came, answer := make(chan struct{}), make(chan struct{})
	client.Judge = func(*discoveryv3.DeltaDiscoveryResponse) error {
		close(came)
		<-answer
		return nil
	}
	go client.Run()
	if err := client.Subscribe(xds.ClusterType); err != nil {
		t.Fatal(err)
	}
	<-came
	if relay.Quiet(0) {
		t.Error("a response is not answered, and it is quiet")
	}
	close(answer)
	xdstest.Eventually(t, "quiet", func() bool { return relay.Quiet(50 * time.Millisecond) })
	if relay.Quiet(time.Hour) {
		t.Error("it has been quiet for an hour")
	}
	cp.stop()
	xdstest.Eventually(t, "loss noticed", func() bool { return !relay.Upstream() })
	if !relay.Quiet(time.Hour) {
		t.Error("there is no control plane, and something comes")
	}
}
