package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var enabled = Namespace{"shop", map[string]string{InjectLabel: "enabled"}}

// TestGoldenAgain: to inject what is injected changes nothing, not a byte, and neither
// does the webhook that sees it afterwards.
func TestGoldenAgain(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			once, first, err := File("once", g.input, "default", g.config)
			if err != nil {
				return // TestGolden has the error
			}
			twice, again, err := File("twice", once, "default", g.config)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(once), string(twice)); d != "" {
				t.Errorf("a second injection changed (-) to (+):\n%s", d)
			}
			decisions := func(results []Result) (out []bool) {
				for _, r := range results {
					out = append(out, r.Inject)
				}
				return out
			}
			if d := cmp.Diff(decisions(first), decisions(again)); d != "" {
				t.Errorf("a second injection decided otherwise:\n%s", d)
			}
		})
	}
}

const plainPod = `{"metadata":{"name":"a"},"spec":{
 "initContainers":[{"name":"setup","image":"s"}],
 "containers":[{"name":"app","image":"a","readinessProbe":{"httpGet":{"path":"/r","port":80}}}]}}`

// TestReinvocation: between two calls the API server and other webhooks add to the pod.
// What they added stays, their containers' probes are changed, and ours come first again.
func TestReinvocation(t *testing.T) {
	first := injected(t, document(t, plainPod), testConfig())
	spec := within(first, "spec")
	for _, container := range append(mappings(spec, "initContainers"), mappings(spec, "containers")...) {
		container["terminationMessagePath"] = "/dev/termination-log"
		mounts, _ := container["volumeMounts"].([]any)
		container["volumeMounts"] = append(mounts, map[string]any{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true})
		within(within(container, "resources"), "limits")["memory"] = "256Mi" // LimitRanger
	}
	for _, variable := range mappings(mappings(spec, "initContainers")[1], "env") {
		if from, ok := variable["valueFrom"].(map[string]any); ok {
			within(from, "fieldRef")["apiVersion"] = "v1"
		}
	}
	settled := injected(t, first, testConfig())
	if d := cmp.Diff(first, settled); d != "" {
		t.Fatalf("defaults of the API server made us change (-) to (+):\n%s", d)
	}

	spec = within(settled, "spec")
	other := map[string]any{"name": "vault", "image": "v", "restartPolicy": "Always", "livenessProbe": map[string]any{"tcpSocket": map[string]any{"port": int64(8200)}}}
	spec["initContainers"] = append([]any{other}, spec["initContainers"].([]any)...)
	spec["containers"] = append(spec["containers"].([]any), map[string]any{"name": "logs", "image": "l", "startupProbe": map[string]any{"grpc": map[string]any{"port": int64(9)}}})
	again := injected(t, settled, testConfig())

	pod, err := typed(again)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(pod.Spec.InitContainers), "heddle-init heddle-proxy vault setup"; got != want {
		t.Errorf("init containers %s, want %s", got, want)
	}
	var probes map[string]any
	for _, e := range pod.Spec.InitContainers[1].Env {
		if e.Name == probesVariable {
			if err := json.Unmarshal([]byte(e.Value), &probes); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]any{
		"/probe/app/readiness":  map[string]any{"httpGet": map[string]any{"path": "/r", "port": 80.0, "scheme": "HTTP"}, "timeoutSeconds": 1.0},
		"/probe/vault/liveness": map[string]any{"tcpSocket": map[string]any{"port": 8200.0}, "timeoutSeconds": 1.0},
		"/probe/logs/startup":   map[string]any{"grpc": map[string]any{"port": 9.0, "service": ""}, "timeoutSeconds": 1.0},
	}
	if d := cmp.Diff(want, probes); d != "" {
		t.Errorf("the sidecar is told other probes (-want +got):\n%s", d)
	}
	for _, c := range append(pod.Spec.InitContainers[2:3], pod.Spec.Containers...) {
		for kind, p := range map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe, "startup": c.StartupProbe} {
			if p != nil && (p.HTTPGet == nil || p.HTTPGet.Path != "/probe/"+c.Name+"/"+kind || p.HTTPGet.Port.IntValue() != healthPort) {
				t.Errorf("%s probe of %s asks %+v, not the sidecar", kind, c.Name, p.ProbeHandler)
			}
		}
	}
}

// TestUpgrade: a pod that was injected offline by another build of the same revision gets
// this build's sidecar.
func TestUpgrade(t *testing.T) {
	old := testConfig()
	old.Image, old.TrustDomain, old.Roots = "heddle:old", "old.example", []string{strings.Repeat("ff", 32)}
	got := injected(t, injected(t, document(t, plainPod), old), testConfig())
	if d := cmp.Diff(injected(t, document(t, plainPod), testConfig()), got); d != "" {
		t.Errorf("want what a plain pod becomes (-), got (+):\n%s", d)
	}
}

// TestInputStays: the document that is given is not changed, also where it shares parts
// with the outcome.
func TestInputStays(t *testing.T) {
	in := document(t, plainPod)
	out := injected(t, in, testConfig())
	injected(t, out, testConfig())
	if d := cmp.Diff(document(t, plainPod), in); d != "" {
		t.Errorf("the input was changed:\n%s", d)
	}
}

// TestHold: a sidecar has one thing that holds the application back, and knows of a hook,
// as nobody reads its log meanwhile. The first container of a pod has no hook.
func TestHold(t *testing.T) {
	for _, hold := range holds {
		for _, cni := range []bool{false, true} {
			c := testConfig()
			c.Hold, c.CNI = hold, cni
			pod, err := typed(injected(t, document(t, plainPod), c))
			if err != nil {
				t.Fatal(err)
			}
			proxy := pod.Spec.InitContainers[0]
			if !cni {
				proxy = pod.Spec.InitContainers[1]
			}
			hook, probe, told := proxy.Lifecycle != nil, proxy.StartupProbe != nil, slices.Contains(proxy.Args, "--hook")
			if want := hold == HoldHook && !cni; hook != want || told != want || probe == want {
				t.Errorf("%s, CNI %t: it has a hook: %t, is told so: %t; a startup probe: %t", hold, cni, hook, told, probe)
			}
		}
	}
}

// TestRestricted holds the sidecar to each control of the Pod Security Standards' level
// "restricted" that a container or volume can break. With the CNI plugin there is
// nothing else of ours in the pod.
func TestRestricted(t *testing.T) {
	for _, hold := range holds {
		t.Run(hold, func(t *testing.T) { restricted(t, hold) })
	}
}

func restricted(t *testing.T, hold string) {
	c := testConfig()
	c.CNI, c.Hold = true, hold
	pod, err := typed(injected(t, document(t, plainPod), c))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(pod.Spec.InitContainers), "heddle-proxy setup"; got != want {
		t.Fatalf("init containers %s, want %s", got, want)
	}
	proxy := pod.Spec.InitContainers[0]
	s := proxy.SecurityContext
	for control, holds := range map[string]bool{
		"privileged":                 s.Privileged == nil || !*s.Privileged,
		"allowPrivilegeEscalation":   s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation,
		"runAsNonRoot":               s.RunAsNonRoot != nil && *s.RunAsNonRoot,
		"runAsUser":                  s.RunAsUser != nil && *s.RunAsUser == ProxyUID,
		"capabilities.drop":          slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"capabilities.add":           len(s.Capabilities.Add) == 0,
		"seccompProfile":             s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"procMount":                  s.ProcMount == nil,
		"seLinuxOptions":             s.SELinuxOptions == nil,
		"appArmorProfile":            s.AppArmorProfile == nil,
		"windowsOptions.hostProcess": s.WindowsOptions == nil,
		"hostPort":                   !slices.ContainsFunc(proxy.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }),
		"host of probes":             (proxy.StartupProbe == nil || proxy.StartupProbe.HTTPGet.Host == "") && proxy.ReadinessProbe.HTTPGet.Host == "",
		"host of hooks":              proxy.Lifecycle == nil || proxy.Lifecycle.PostStart.HTTPGet == nil,
		"read-only root":             s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem,
	} {
		if !holds {
			t.Errorf("%s does not hold: %+v", control, s)
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir == nil && v.Projected == nil {
			t.Errorf("volume %s is of a kind that restricted does not let in", v.Name)
		}
	}
	if pod.Spec.HostNetwork || pod.Spec.HostPID || pod.Spec.HostIPC {
		t.Error("the pod shares a namespace with its node")
	}
}

func TestDecide(t *testing.T) {
	app := corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}
	for _, c := range []struct {
		name     string
		ns       string // labels as inject=…,rev=…
		pod      string
		revision string
		want     bool
		reason   string
	}{
		{name: "no label", reason: "neither it nor namespace shop has the label"},
		{name: "namespace", ns: "inject=enabled", want: true, reason: "namespace shop has the label heddle.dev/inject=enabled"},
		{name: "namespace off", ns: "inject=disabled", reason: "namespace shop has the label heddle.dev/inject=disabled"},
		{name: "namespace's label is no word of ours", ns: "inject=yes", reason: "neither enabled nor disabled"},
		{name: "pod on in a namespace without", pod: "inject=enabled", want: true, reason: "it has the label heddle.dev/inject=enabled"},
		{name: "pod on in a namespace that is off", ns: "inject=disabled", pod: "inject=enabled", want: true},
		{name: "pod off in a namespace that is on", ns: "inject=enabled", pod: "inject=disabled", reason: "it has the label heddle.dev/inject=disabled"},
		{name: "namespace of a canary, asked by the default", ns: "inject=enabled,rev=canary", reason: "belongs to revision canary"},
		{name: "namespace of a canary, asked by it", ns: "inject=enabled,rev=canary", revision: "canary", want: true},
		{name: "canary asked for the default's", ns: "inject=enabled", revision: "canary", reason: "belongs to revision default"},
		{name: "pod of a canary", ns: "inject=enabled", pod: "rev=canary", revision: "canary", want: true},
		{name: "pod of the default in a canary's namespace", ns: "inject=enabled,rev=canary", pod: "rev=default", want: true},
		{name: "a revision is no wish for a sidecar", ns: "rev=canary", revision: "canary", reason: "neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := testConfig()
			if c.revision != "" {
				config.Revision = c.revision
			}
			pod := &corev1.Pod{Spec: app}
			pod.Labels = labelsOf(c.pod)
			d, err := Decide(pod, Namespace{"shop", labelsOf(c.ns)}, config)
			if err != nil || d.Inject != c.want || !strings.Contains(d.Reason, c.reason) || d.Reason == "" {
				t.Errorf("got %+v, %v; want %v, %q", d, err, c.want, c.reason)
			}
		})
	}
	for _, ns := range []string{"kube-system", "kube-public", "kube-node-lease", "heddle-system"} {
		pod := &corev1.Pod{Spec: app}
		pod.Labels = labelsOf("inject=enabled")
		if d, err := Decide(pod, Namespace{ns, labelsOf("inject=enabled")}, testConfig()); err != nil || d.Inject {
			t.Errorf("namespace %s: %+v, %v; want no sidecar there, ever", ns, d, err)
		}
	}
}

// TestMirrorPod: what the kubelet tells of a static pod is left alone. The node would run
// the pod as its file has it all the same, and the two would never agree.
func TestMirrorPod(t *testing.T) {
	pod := document(t, plainPod)
	within(within(pod, "metadata"), "annotations")["kubernetes.io/config.mirror"] = "0123"
	if _, d, err := Pod(pod, enabled, testConfig()); err != nil || d.Inject || !strings.Contains(d.Reason, "static pod") {
		t.Errorf("got %+v, %v", d, err)
	}
}

// TestOtherRevision: a pod keeps the sidecar of another revision; the annotation alone,
// copied from a live pod, does not make one.
func TestOtherRevision(t *testing.T) {
	canary := testConfig()
	canary.Revision = "canary"
	ns := Namespace{"shop", map[string]string{InjectLabel: "enabled", RevisionLabel: "canary"}}
	pod, _, err := Pod(document(t, plainPod), ns, canary)
	if err != nil {
		t.Fatal(err)
	}
	same, d, err := Pod(pod, enabled, testConfig())
	if err != nil || d.Inject || !strings.Contains(d.Reason, "sidecar of revision canary already") {
		t.Errorf("got %+v, %v; want it left to the canary", d, err)
	}
	if diff := cmp.Diff(pod, same); diff != "" {
		t.Errorf("changed all the same:\n%s", diff)
	}
	copied := document(t, plainPod)
	within(within(copied, "metadata"), "annotations")[Injected] = "canary"
	if _, d, err := Pod(copied, enabled, testConfig()); err != nil || !d.Inject {
		t.Errorf("with the annotation alone: %+v, %v; want a sidecar", d, err)
	}
}

func injected(t *testing.T, in map[string]any, c Config) map[string]any {
	t.Helper()
	out, d, err := Pod(in, enabled, c)
	if err != nil || !d.Inject {
		t.Fatalf("not injected: %+v, %v", d, err)
	}
	return out
}

func names(containers []corev1.Container) string {
	var out []string
	for _, c := range containers {
		out = append(out, c.Name)
	}
	return strings.Join(out, " ")
}

func labelsOf(text string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			out[fmt.Sprintf("heddle.dev/%s", name)] = value
		}
	}
	return out
}
