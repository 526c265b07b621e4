//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkStartup measures the time from when a pod is scheduled to its first answer, by
// turns with a sidecar and without, and reports the medians.
func BenchmarkStartup(b *testing.B) { startups(b) }

// BenchmarkStartupCNI measures it where the CNI plugin captures the traffic.
func BenchmarkStartupCNI(b *testing.B) {
	if out, err := install(b.Context(), "--set", inCNIMode); err != nil {
		b.Fatalf("install: %v: %s", err, out)
	}
	defer withoutCNI(b)
	startups(b)
}

func startups(b *testing.B) {
	t := benchT{b}
	ns, outside := "startup", "startup-plain"
	for _, name := range []string{ns, outside} {
		t.kubectl("create", "namespace", name)
		defer t.kubectl("delete", "namespace", name)
	}
	t.kubectl("label", "namespace", ns, "heddle.dev/inject=enabled")
	t.apply(outside, server("target", 2, ""))
	t.kubectl("-n", outside, "rollout", "status", "deployment/target", "--timeout=80s")
	times := map[string][]float64{}
	for i := range max(b.N, 15) {
		for _, where := range []string{ns, outside} {
			times[where] = append(times[where], t.startup(where, fmt.Sprintf("p%d", i), "http://target."+outside+"/"))
		}
	}
	with, without := median(times[ns]), median(times[outside])
	b.ReportMetric(with, "ms/injected")
	b.ReportMetric(without, "ms/plain")
	b.ReportMetric(with-without, "ms/added")
	b.Logf("injected %.0f", times[ns])
	b.Logf("plain    %.0f", times[outside])
}

// BenchmarkMemory reports what the processes of a sidecar hold, idle in a small mesh.
func BenchmarkMemory(b *testing.B) {
	t := benchT{b}
	t.kubectl("create", "namespace", "memory")
	defer t.kubectl("delete", "namespace", "memory", "--wait=false")
	t.kubectl("label", "namespace", "memory", "heddle.dev/inject=enabled")
	t.apply("memory", server("web", 1, ""))
	t.kubectl("-n", "memory", "rollout", "status", "deployment/web", "--timeout=80s")
	uid := t.kubectl("-n", "memory", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.uid}")
	for program, m := range memoryOf(uid) {
		b.ReportMetric(m.anon, "MiB-anon/"+program)
		b.ReportMetric(m.rss, "MiB-rss/"+program)
	}
}

type memory struct{ anon, rss float64 } // MiB

// memoryOf reads what the processes of a pod hold, by program.
func memoryOf(uid string) map[string]memory {
	out := map[string]memory{}
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range pids {
		cgroup, err := os.ReadFile(dir + "/cgroup")
		if err != nil || !strings.Contains(string(cgroup), "pod"+uid) {
			continue
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		mib := func(name string) (kb float64) {
			fmt.Sscan(fields[name], &kb) //nolint:errcheck // kernel threads have none
			return kb / 1024
		}
		out[fields["Name"]] = memory{mib("RssAnon"), mib("VmRSS")}
	}
	return out
}

// benchT are the helpers of tests for a benchmark.
type benchT struct{ *testing.B }

func (b benchT) kubectl(args ...string) string {
	b.Helper()
	out, err := c.In(b.Context(), append([]string{"kubectl"}, args...)...).CombinedOutput()
	if err != nil {
		b.Fatalf("kubectl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (b benchT) apply(namespace, objects string) {
	b.Helper()
	cmd := c.In(b.Context(), "kubectl", "-n", namespace, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(objects, "APP_IMAGE", appImage))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("apply: %v: %s", err, out)
	}
}

// startup starts a pod that asks for a URL once, and gives the milliseconds from when it
// was scheduled to the answer. The pod chooses its node itself, so it is scheduled when it
// is made.
func (b benchT) startup(namespace, name, url string) float64 {
	b.Helper()
	began := time.Now()
	b.apply(namespace, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: n2
  restartPolicy: Never
  containers: [{name: app, image: APP_IMAGE, args: [get, %q]}]
`, name, url))
	created := time.Now() // kubectl's own start is not the pod's; the pod was made before this
	b.kubectl("-n", namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+name, "--timeout=60s")
	stamp, said, _ := strings.Cut(b.kubectl("-n", namespace, "logs", name, "-c", "app", "--timestamps"), " ")
	var a answer
	if err := json.Unmarshal([]byte(said), &a); err != nil || a.Code != 200 {
		b.Fatalf("pod %s/%s was answered %s", namespace, name, said)
	}
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		b.Fatal(err)
	}
	if at.Before(began) {
		b.Fatalf("answered at %s, before the pod was made at %s", at, began)
	}
	b.kubectl("-n", namespace, "delete", "pod", name, "--wait=false")
	return float64(at.Sub(created).Microseconds()) / 1000
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
