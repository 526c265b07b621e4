//go:build k8s

package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long anything may take that is waited for; slow machines are slow.
const patience = 90 * time.Second

// kubectl runs kubectl and gives what it said; the test ends where it fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryKubectl(t testing.TB, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := c.In(ctx, append([]string{"kubectl"}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// apply applies objects in a namespace.
func apply(t *testing.T, namespace, objects string) {
	t.Helper()
	if out, err := tryApply(t, namespace, objects); err != nil {
		t.Fatalf("apply: %v: %s", err, out)
	}
}

func tryApply(t *testing.T, namespace, objects string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := []string{"kubectl", "apply", "-f", "-"}
	if namespace != "" { // else the objects name theirs
		args = append(args, "--namespace", namespace)
	}
	cmd := c.In(ctx, append(args, flags...)...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(objects, "APP_IMAGE", appImage))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// namespace makes a namespace that ends with the test, in the mesh or not.
func namespace(t *testing.T, inject bool) string {
	t.Helper()
	name := strings.Trim(notName.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-"), "-")
	if !inject {
		name += "-plain"
	}
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := tryKubectl(t, "-n", name, "get", "pods,svc,endpointslices", "-o", "wide")
			t.Logf("namespace %s:\n%s", name, out)
			logs, _ := tryKubectl(t, "-n", name, "logs", "-l", "app", "--all-containers", "--prefix", "--tail=15", "--max-log-requests=20")
			t.Log(logs)
		}
		kubectl(t, "delete", "namespace", name, "--wait=false")
	})
	if inject {
		kubectl(t, "label", "namespace", name, "heddle.dev/inject=enabled")
	}
	return name
}

// ready waits until workloads have rolled out, such as deployment/web.
func ready(t *testing.T, namespace string, workloads ...string) {
	t.Helper()
	for _, w := range workloads {
		if strings.HasPrefix(w, "pod/") {
			kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", w, "--timeout=80s")
		} else {
			kubectl(t, "-n", namespace, "rollout", "status", w, "--timeout=80s")
		}
	}
}

// answer is what the test application tells of a request.
type answer struct {
	Code  int
	Body  string
	Error string
}

// served is what its server told in the body.
type served struct {
	Workload, Version, Method, Path, Host, Remote string
	Headers                                       map[string][]string
}

func (a answer) served(t *testing.T) served {
	t.Helper()
	var s served
	if err := json.Unmarshal([]byte(a.Body), &s); err != nil {
		t.Fatalf("answer %+v: %v", a, err)
	}
	return s
}

// inPod runs the test application's client in a pod and gives what it told, a line each.
func inPod(t *testing.T, namespace, pod string, args ...string) []answer {
	t.Helper()
	out := kubectl(t, append([]string{"-n", namespace, "exec", pod, "-c", "app", "--", "/app"}, args...)...)
	answers := answersIn(out)
	if len(answers) == 0 {
		t.Fatalf("app %v told nothing: %s", args, out)
	}
	return answers
}

// answersIn reads what the test application's client told.
func answersIn(out string) (answers []answer) {
	for line := range strings.Lines(out) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			continue // kubectl's own remarks
		}
		answers = append(answers, a)
	}
	return answers
}

// get asks one URL from a pod.
func get(t *testing.T, namespace, pod, url string) answer {
	t.Helper()
	return inPod(t, namespace, pod, "get", url)[0]
}

// eventually waits until ok, which says what it saw.
func eventually(t *testing.T, what string, ok func() (saw string, done bool)) {
	t.Helper()
	within(t, patience, what, ok)
}

// within is eventually for what takes longer by design.
func within(t *testing.T, patience time.Duration, what string, ok func() (saw string, done bool)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		saw, done := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %s, last: %s", what, patience, saw)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// server is a Deployment and Service of the test application. A service account of its
// name is its identity.
func server(name string, replicas int, extra string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{name: http, port: 80, targetPort: http}, {name: banner, port: 9000, targetPort: banner}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: %[1]s
      containers:
      - name: app
        image: APP_IMAGE
        args: [serve, -http, ":8080", -banner, ":9000", -version, %[1]s]
        ports: [{name: http, containerPort: 8080}, {name: banner, containerPort: 9000}]
        env: [{name: HEDDLE_WORKLOAD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
%[3]s
`, name, replicas, extra)
}

// load is a constant load from a pod on a URL, which finish ends.
type load struct {
	t     *testing.T
	stop  func() error
	out   *bytes.Buffer
	ended chan error
}

// result is what the load was answered.
type result struct {
	OK, Failed             int
	Failures, Versions, By map[string]int
	Times                  []string
	Worst                  float64 `json:"worst_ms"`
}

// startLoad sends requests from a pod until finish.
func startLoad(t *testing.T, namespace, pod, url string, rate int, flags ...string) *load {
	t.Helper()
	args := append([]string{"kubectl", "-n", namespace, "exec", "-i", pod, "-c", "app", "--", "/app", "load", "-url", url, "-rate", strconv.Itoa(rate)}, flags...)
	return begin(t, c.In(context.WithoutCancel(t.Context()), args...))
}

// begin runs a command that sends a load.
func begin(t *testing.T, cmd *exec.Cmd) *load {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, stop: stdin.Close, out: new(bytes.Buffer), ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = l.out, l.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.ended <- cmd.Wait() }()
	return l
}

// finish ends the load and gives what it was answered.
func (l *load) finish() result {
	l.t.Helper()
	if err := l.stop(); err != nil {
		l.t.Errorf("end the load: %v", err)
	}
	return l.wait()
}

// wait waits for a load's own end and gives what it was answered.
func (l *load) wait() result {
	l.t.Helper()
	select {
	case err := <-l.ended:
		if err != nil {
			l.t.Fatalf("load: %v: %s", err, l.out)
		}
	case <-time.After(patience):
		l.t.Fatalf("the load does not end: %s", l.out)
	}
	var r result
	if err := json.Unmarshal(l.out.Bytes(), &r); err != nil {
		l.t.Fatalf("load told %s: %v", l.out, err)
	}
	l.t.Logf("%d requests, %d failed, worst %.0f ms, by %v", r.OK+r.Failed, r.Failed, r.Worst, r.By)
	return r
}

// unharmed ends the load, of which no request may have failed.
func (l *load) unharmed() result {
	l.t.Helper()
	r := l.finish()
	if r.Failed > 0 || r.OK == 0 {
		l.t.Errorf("%d of %d requests failed: %v at %v", r.Failed, r.OK+r.Failed, r.Failures, r.Times)
	}
	return r
}

// client is a pod that only calls others.
func client(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  serviceAccountName: %[1]s
  containers: [{name: app, image: APP_IMAGE, args: [serve, -banner, ":9999"]}]
`, name)
}
