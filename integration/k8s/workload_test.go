//go:build k8s

package k8s

import (
	"fmt"
	"strings"
	"testing"
)

// TestStatefulSet reaches pods by their own names, with mutual TLS.
func TestStatefulSet(t *testing.T) {
	ns, outside := namespace(t, true), namespace(t, false)
	apply(t, ns, client("caller")+`
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: store}
---
apiVersion: v1
kind: Service
metadata: {name: store}
spec: {clusterIP: None, selector: {app: store}, ports: [{name: http, port: 8080}, {name: peers, port: 9000}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      serviceAccountName: store
      containers:
      - name: app
        image: APP_IMAGE
        args: [serve, -http, ":8080", -banner, ":9000"]
        env: [{name: HEDDLE_WORKLOAD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`)
	apply(t, outside, client("stranger"))
	ready(t, ns, "statefulset/store", "pod/caller")
	ready(t, outside, "pod/stranger")
	for i := range 3 {
		pod := fmt.Sprintf("store-%d", i)
		host := pod + ".store." + ns
		eventually(t, pod+" answers by its name", func() (string, bool) {
			a := get(t, ns, "caller", "http://"+host+":8080/")
			return fmt.Sprintf("%+v", a), a.Code == 200 && a.served(t).Workload == pod
		})
		if a := inPod(t, ns, "caller", "tcp", host+":9000")[0]; !strings.Contains(a.Body, "220 "+pod) {
			t.Errorf("%s speaks first: %+v", pod, a)
		}
		if a := get(t, outside, "stranger", "http://"+host+":8080/"); a.Error == "" {
			t.Errorf("%s answered a pod outside of the mesh: %+v", pod, a)
		}
		if a := inPod(t, ns, "store-0", "tcp", host+":9000")[0]; !strings.Contains(a.Body, "220 "+pod) {
			t.Errorf("%s to its peer: %+v", pod, a)
		}
	}
	if a := inPod(t, ns, "caller", "resolve", "ip4", "store")[0]; len(strings.Fields(a.Body)) != 3 {
		t.Errorf("the headless name leads to %+v", a)
	}
}

// TestJob runs a Job that calls a service and ends: its sidecar does not keep it.
func TestJob(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 1, ""))
	ready(t, ns, "deployment/web")
	apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      # An init container of the user's has the mesh, too.
      initContainers: [{name: before, image: APP_IMAGE, args: [get, "http://web/before"]}]
      containers: [{name: app, image: APP_IMAGE, args: [get, "http://web/"]}]
`)
	kubectl(t, "-n", ns, "wait", "--for=condition=Complete", "job/once", "--timeout=80s")
	for _, container := range []string{"before", "app"} {
		if said := kubectl(t, "-n", ns, "logs", "job/once", "-c", container); !strings.Contains(said, `"code":200`) {
			t.Errorf("container %s: %s", container, said)
		}
	}
}

// TestProbes has every kind of probe under strict mutual TLS.
func TestProbes(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: app
    image: APP_IMAGE
    args: [serve, -http, ":8080", -banner, ":9000"]
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1}
    livenessProbe: {httpGet: {path: /healthz, port: http, httpHeaders: [{name: X-Probe, value: "1"}]}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
  - name: second
    image: APP_IMAGE
    args: [serve, -http, "127.0.0.1:8081"]
    readinessProbe: {exec: {command: [/app, get, "http://127.0.0.1:8081/"]}, periodSeconds: 1}
---
`+client("caller"))
	ready(t, ns, "pod/web", "pod/caller")
	if a := inPod(t, ns, "caller", "get", "POST", "http://web/unready")[0]; a.Code != 200 {
		t.Fatalf("unready: %+v", a)
	}
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready=false", "pod/web", "--timeout=60s")
}

// TestRollingUpdate replaces every pod of a Deployment under a constant load.
func TestRollingUpdate(t *testing.T) {
	ns := namespace(t, true)
	apply(t, ns, server("web", 3, "")+"---"+client("caller"))
	ready(t, ns, "deployment/web", "pod/caller")
	l := startLoad(t, ns, "caller", "http://web/", 100)
	for range 2 {
		kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
		ready(t, ns, "deployment/web")
	}
	// The pods of the first generation are gone, so others have answered; which ones depends
	// on the zones that they were scheduled to.
	if r := l.unharmed(); len(r.By) < 2 {
		t.Errorf("only %v answered, and it is gone", r.By)
	}
}
