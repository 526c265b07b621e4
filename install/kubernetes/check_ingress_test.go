package kubernetes

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestIngressFindings(t *testing.T) {
	two := int32(2)
	meta := metav1.ObjectMeta{Namespace: Namespace, Name: "heddle-ingress"}
	addressed := corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}}}
	waiting := addressed
	waiting.Status = corev1.ServiceStatus{}
	for _, c := range []struct {
		available int32
		service   corev1.Service
		level     Level
		says      string
	}{
		{2, addressed, OK, "2 of 2 proxies are available"},
		{1, addressed, Warning, "1 of 2 proxies"},
		{0, addressed, Error, "nobody gets in"},
		{2, waiting, Warning, "has no address yet"},
	} {
		d := appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &two}, Status: appsv1.DeploymentStatus{AvailableReplicas: c.available}}
		got := ingressFindings(d, []corev1.Service{c.service})
		if len(got) != 1 || got[0].Level != c.level || !strings.Contains(got[0].Message, c.says) || c.level != OK && got[0].Fix == "" {
			t.Errorf("with %d available: %+v, want %q", c.available, got, c.says)
		}
	}
}
