package cni

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// TestMain lets tests start this program as the plugin, as a runtime does.
func TestMain(m *testing.M) {
	if IsPlugin(os.Args) {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// plugin runs the plugin and gives what it answered. Its network is our own: none of these
// pods is of the mesh.
func plugin(t *testing.T, command, args, config string) (answer map[string]any, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args[0] = "/opt/cni/bin/" + Name
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1",
		"CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin", "CNI_ARGS="+args)
	cmd.Stdin = strings.NewReader(config)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if stdout.Len() > 0 {
		if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
			t.Fatalf("%s answered %q: %v: %s", command, &stdout, err, &stderr)
		}
	}
	return answer, err == nil
}

// TestPlugin asks the plugin about pods while there is no API server.
func TestPlugin(t *testing.T) {
	dir := t.TempDir()
	nowhere := filepath.Join(dir, "kubeconfig")
	write(t, nowhere, `{"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`)
	const (
		system = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=p;K8S_POD_UID=u"
		user   = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p;K8S_POD_UID=u"
	)
	config := func(version, kubeconfig, result string) string {
		return `{"cniVersion": "` + version + `", "name": "net", "type": "heddle-cni", "skipNamespaces": ["kube-system"], "kubeconfig": "` + kubeconfig + `"` + result + `}`
	}
	const before = `, "prevResult": {"cniVersion": "VERSION", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "version": "4"}]}`
	for name, c := range map[string]struct {
		command, args, kubeconfig, result string
		says                              string // of an error
		code                              float64
	}{
		"a pod of the system":    {"ADD", system, nowhere, before, "", 0},
		"no pod of Kubernetes":   {"ADD", "", nowhere, before, "", 0},
		"a pod that may be ours": {"ADD", user, nowhere, before, "cannot tell whether pod shop/p is of the mesh", 11},
		"no kubeconfig yet":      {"ADD", user, filepath.Join(dir, "gone"), before, "cannot tell whether pod shop/p is of the mesh", 11},
		"check of one":           {"CHECK", user, nowhere, before, "cannot tell", 11},
		"check of a system's":    {"CHECK", system, nowhere, before, "", 0},
		"first of its list":      {"ADD", user, nowhere, "", "first plugin of its list", 7},
		"without settings":       {"ADD", user, "", before, `no "kubeconfig"`, 7},
		"removal never waits":    {"DEL", user, filepath.Join(dir, "gone"), "", "", 0},
	} {
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			t.Run(name+" "+version, func(t *testing.T) {
				answer, ok := plugin(t, c.command, c.args, config(version, c.kubeconfig, strings.ReplaceAll(c.result, "VERSION", version)))
				if ok != (c.says == "") {
					t.Fatalf("answered %v", answer)
				}
				message, _ := answer["msg"].(string)
				details, _ := answer["details"].(string)
				if !ok && (!strings.Contains(message+details, c.says) || answer["code"] != c.code) {
					t.Errorf("answered %v, want code %v: %s", answer, c.code, c.says)
				}
				if ok && c.command == "ADD" && (answer["cniVersion"] != version || !strings.Contains(encoded(t, answer["ips"]), "10.1.0.5/16") || answer["interfaces"] == nil) {
					t.Errorf("the network's own result became %v", answer)
				}
			})
		}
	}
	if answer, ok := plugin(t, "VERSION", "", `{"cniVersion": "1.0.0"}`); !ok || !strings.Contains(encoded(t, answer), `"0.4.0"`) || !strings.Contains(encoded(t, answer), `"1.0.0"`) {
		t.Errorf("versions: %v", answer)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pod has a sidecar, of the given annotations.
func pod(annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: annotations},
		Spec:       corev1.PodSpec{InitContainers: []corev1.Container{{Name: proxyContainer}}},
	}
}

func TestOfMesh(t *testing.T) {
	static := map[string]string{inject.Injected: "default", corev1.MirrorPodAnnotationKey: "x"}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"injected":             {pod(map[string]string{inject.Injected: "canary"}), true},
		"a container's name":   {pod(nil), false},
		"an annotation":        {&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{inject.Injected: "default"}}}, false},
		"of the kubelet's own": {pod(static), false},
	} {
		if got := ofMesh(c.pod); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestUncaptured: what is repaired are pods whose sidecar ended for the lack of rules, and
// not those that found them since.
func TestUncaptured(t *testing.T) {
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	waits := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	injected := map[string]string{inject.Injected: "default"}
	for name, c := range map[string]struct {
		annotations map[string]string
		state, last corev1.ContainerState
		change      func(*corev1.Pod)
		want        bool
	}{
		"ended":                 {injected, ended(capture.ExitNotCaptured), corev1.ContainerState{}, nil, true},
		"waits to try again":    {injected, waits, ended(capture.ExitNotCaptured), nil, true},
		"runs since":            {injected, runs, ended(capture.ExitNotCaptured), nil, false},
		"ended otherwise":       {injected, waits, ended(1), nil, false},
		"ended otherwise since": {injected, ended(1), ended(capture.ExitNotCaptured), nil, false},
		"not ours":              {nil, ended(capture.ExitNotCaptured), corev1.ContainerState{}, nil, false},
		"on its way out":        {injected, waits, ended(capture.ExitNotCaptured), func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Time) }, false},
		"finished":              {injected, waits, ended(capture.ExitNotCaptured), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
	} {
		p := pod(c.annotations)
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: proxyContainer, State: c.state, LastTerminationState: c.last}}
		if c.change != nil {
			c.change(p)
		}
		small, err := slim(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := uncaptured(small.(*corev1.Pod)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
