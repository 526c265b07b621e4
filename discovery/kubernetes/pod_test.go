package kubernetes

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// meshPod is a pod that is in the mesh.
func meshPod() *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "api", InitContainers: []corev1.Container{{Name: ProxyContainer}}}}
	p.Namespace, p.Name, p.UID = "shop", "api-0", "u"
	p.Annotations, p.Labels = map[string]string{InjectedAnnotation: "default"}, map[string]string{"app": "api"}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}}
	return p
}

func TestPod(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   bool // in the mesh
	}{
		{"as it is", func(*corev1.Pod) {}, true},
		{"the proxy among the containers", func(p *corev1.Pod) { p.Spec.Containers, p.Spec.InitContainers = p.Spec.InitContainers, nil }, true},
		{"without the annotation", func(p *corev1.Pod) { p.Annotations = nil }, false},
		{"without the proxy", func(p *corev1.Pod) { p.Spec.InitContainers = nil }, false},
		{"in its node's network", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		{"without an address", func(p *corev1.Pod) { p.Status.PodIPs = nil }, false},
		{"that starts", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, true},
		{"that has ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		{"that has failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object := meshPod()
			tc.change(object)
			p := podOf(object, "shop.example", mesh.Name{})
			if got := p.workload != nil; got != tc.want {
				t.Fatalf("in the mesh: %v, want %v", got, tc.want)
			}
			if p.UID != "u" || p.ServiceAccount != "api" || p.Node != "n1" {
				t.Errorf("attestation knows %+v", p.Pod)
			}
			if !tc.want {
				return
			}
			w := p.workload
			if w.Identity.String() != "spiffe://shop.example/ns/shop/sa/api" || !slices.Equal(w.Addresses, addrs("10.0.0.1", "fd00::1")) ||
				!w.Pod || w.Capture != mesh.Transparent || w.Labels["app"] != "api" || w.Node != "n1" {
				t.Errorf("workload is %+v", w)
			}
		})
	}
}

func TestPodWithOpenPorts(t *testing.T) {
	object := meshPod()
	object.Annotations[OpenPortsAnnotation] = "9090, 8081,no,0,70000"
	if got := podOf(object, "shop.example", mesh.Name{}).workload.Open; !slices.Equal(got, []uint16{9090, 8081}) {
		t.Errorf("open ports %v", got)
	}
}

func TestPodWithoutServiceAccount(t *testing.T) {
	object := meshPod()
	object.Spec.ServiceAccountName = ""
	if p := podOf(object, "shop.example", mesh.Name{}); p.ServiceAccount != "default" || p.workload.Identity.ServiceAccount() != "default" {
		t.Errorf("service account is %q, identity %s", p.ServiceAccount, p.workload.Identity)
	}
}

// TestKubeletsNews: what a kubelet says all the time is no change to us.
func TestKubeletsNews(t *testing.T) {
	before, after := meshPod(), meshPod()
	after.ResourceVersion = "2"
	after.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	after.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", RestartCount: 3}}
	if !samePod(podOf(before, "td", mesh.Name{}), podOf(after, "td", mesh.Name{})) {
		t.Error("a pod differs by its conditions")
	}
	after.Status.PodIPs[0].IP = "10.0.0.2"
	if samePod(podOf(before, "td", mesh.Name{}), podOf(after, "td", mesh.Name{})) {
		t.Error("a pod with another address is the same")
	}
}
