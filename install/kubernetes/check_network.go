package kubernetes

import (
	"context"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// controlPlanePort is where sidecars reach the control plane.
const controlPlanePort = 15010

// networkPolicies finds namespaces whose pods may not be able to reach the control plane:
// something limits what they call, and nothing lets all of them through.
func (c *Checker) networkPolicies(ctx context.Context) ([]Finding, error) {
	policies, err := list[networkingv1.NetworkPolicy](ctx, c, "networking.k8s.io", "v1", "networkpolicies", "")
	if err != nil {
		return nil, err
	}
	closed := shutIn(policies, c.namespace)
	if len(closed) == 0 {
		return fine("none keeps pods from the control plane"), nil
	}
	return []Finding{bad(Warning,
		fmt.Sprintf("let their pods reach %s on TCP port %d, and the cluster's DNS; Heddle's README has a NetworkPolicy for that", c.namespace, controlPlanePort),
		"NetworkPolicies limit what pods of these namespaces call, and none lets all of them reach the control plane: %s", some(closed))}, nil
}

// shutIn lists the namespaces with a policy for egress and none by which every pod may call
// the control plane in namespace mesh.
func shutIn(policies []networkingv1.NetworkPolicy, mesh string) []string {
	limited, opened := map[string]bool{}, map[string]bool{}
	for _, p := range policies {
		if !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			continue
		}
		limited[p.Namespace] = true
		all := len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) == 0
		if all && slices.ContainsFunc(p.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return leadsTo(r, p.Namespace, mesh) }) {
			opened[p.Namespace] = true
		}
	}
	var out []string
	for namespace := range limited {
		if !opened[namespace] {
			out = append(out, namespace)
		}
	}
	slices.Sort(out)
	return out
}

// leadsTo tells whether a rule of a policy in a namespace allows calls to the control plane,
// as far as that can be told without its address: rules by address do not count.
func leadsTo(r networkingv1.NetworkPolicyEgressRule, namespace, mesh string) bool {
	port := func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && *p.Protocol != "TCP" {
			return false
		}
		if p.Port == nil {
			return true
		}
		first := p.Port.IntValue() // 0 of a name, which the control plane's port has none of
		return first == controlPlanePort || p.EndPort != nil && first > 0 && first <= controlPlanePort && int(*p.EndPort) >= controlPlanePort
	}
	peer := func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil || p.PodSelector != nil && p.NamespaceSelector == nil && namespace != mesh {
			return false
		}
		return (p.NamespaceSelector == nil || selects(p.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": mesh})) &&
			(p.PodSelector == nil || selects(p.PodSelector, map[string]string{"app.kubernetes.io/name": "heddle-controlplane", "app.kubernetes.io/part-of": "heddle"}))
	}
	return (len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, port)) && (len(r.To) == 0 || slices.ContainsFunc(r.To, peer))
}

func selects(s *metav1.LabelSelector, of map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(of))
}
