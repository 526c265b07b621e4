//go:build k8s

package k8s

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	shop "github.com/heddle-mesh/heddle/install/examples/shop/images"
	"github.com/heddle-mesh/heddle/install/image"
)

const shopFile = "../../install/examples/shop/kubernetes.yaml"

// startShop loads the images, tells new sidecars of Jaeger and starts the shop.
func startShop(t *testing.T) {
	t.Helper()
	loadImages(t)
	ctx := context.WithoutCancel(t.Context())
	if out, err := install(ctx, "--set", "tracing.collector=jaeger.tracing.svc:4317", "--set", "ingress.enabled=true"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(removeIngress(t)) // and installs as before
	objects, err := os.ReadFile(shopFile)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryApply(t, "", string(objects)); err != nil {
		t.Fatalf("apply %s: %v: %s", shopFile, err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{
				{"-n", "shop", "get", "pods,svc,httproutes,authorizationpolicies", "-o", "wide"},
				{"-n", "shop", "logs", "-l", "app", "--all-containers", "--prefix", "--tail=10", "--max-log-requests=50"},
				{"-n", "tracing", "logs", "-l", "app", "--tail=10"},
			} {
				out, _ := tryKubectl(t, args...)
				t.Logf("kubectl %v:\n%s", args, out)
			}
		}
		kubectl(t, "delete", "namespace", "shop", "tracing") // waits: the names are needed again
	})
	ready(t, "tracing", "deployment/jaeger")
	ready(t, "shop", "statefulset/db", "deployment/api-v1", "deployment/api-v2", "deployment/frontend", "deployment/loadgen")
}

// loadImages builds the shop's programs and puts the images on the nodes.
func loadImages(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", dir+"/", "../../install/examples/shop/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v: %s", err, out)
	}
	all, err := shop.All(t.Context(), dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range all {
		file := filepath.Join(dir, name+".tar")
		if err := image.WriteFile(file, i); err != nil {
			t.Fatal(err)
		}
		if err := c.Load(t.Context(), file); err != nil {
			t.Fatal(err)
		}
	}
}

// inside puts the test's client into the first pod with a label, as a debugging container,
// and gives the pod's name: what the client does, the workload does.
func inside(t *testing.T, label string) (pod string) {
	t.Helper()
	pod = kubectl(t, "-n", "shop", "get", "pods", "-l", label, "-o", "jsonpath={.items[0].metadata.name}")
	kubectl(t, "-n", "shop", "debug", pod, "--image="+appImage, "--container=app", "--profile=restricted", "--quiet",
		"--", "/app", "serve", "-http", "127.0.0.1:9998", "-banner", "127.0.0.1:9999")
	kubectl(t, "-n", "shop", "wait", "pod/"+pod, "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.running}", "--timeout=60s")
	return pod
}
