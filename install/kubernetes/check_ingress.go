package kubernetes

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// ingress looks at the proxies that serve Ingresses, where they are installed. What is
// wrong with an Ingress itself the control plane knows.
func (c *Checker) ingress(ctx context.Context) ([]Finding, error) {
	all, err := list[appsv1.Deployment](ctx, c, "apps", "v1", "deployments", c.namespace)
	if err != nil {
		return nil, err
	}
	services, err := list[corev1.Service](ctx, c, "", "v1", "services", c.namespace)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.Name == ingressName {
			return ingressFindings(d, services), nil
		}
	}
	return fine("is not installed"), nil
}

func ingressFindings(d appsv1.Deployment, services []corev1.Service) []Finding {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	look := fmt.Sprintf("kubectl -n %s describe pods -l app.kubernetes.io/name=%s", d.Namespace, d.Name)
	var out []Finding
	switch n := d.Status.AvailableReplicas; {
	case n == 0:
		out = append(out, bad(Error, look, "no proxy of %s is available: nobody gets in by an Ingress", d.Name))
	case n < want:
		out = append(out, bad(Warning, look, "%d of %d proxies of %s are available", n, want, d.Name))
	}
	for _, s := range services {
		if s.Name == d.Name && s.Spec.Type == corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) == 0 {
			out = append(out, bad(Warning, "see that the cluster has something that gives LoadBalancers addresses: kubectl -n "+s.Namespace+" describe service "+s.Name,
				"Service %s/%s has no address yet, and neither has any Ingress", s.Namespace, s.Name))
		}
	}
	if len(out) == 0 {
		return fine("%d of %d proxies are available", d.Status.AvailableReplicas, want)
	}
	return out
}
