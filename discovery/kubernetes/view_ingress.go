package kubernetes

import "github.com/heddle-mesh/heddle/controlplane/mesh"

// setGateway puts the gateway into the mesh that serves the cluster's Ingresses.
func (v *view) setGateway(n mesh.Name) {
	ref := mesh.Ref{Kind: mesh.KindGateway, Name: n}
	v.changed[ref] = &mesh.Gateway{Meta: mesh.Meta{Ref: ref, Generation: 1}}
}

func (v *view) setIngress(u update[*mesh.Ingress]) {
	change(v, mesh.KindIngress, u)
	if u.gone {
		delete(v.ingresses, u.name)
	} else {
		v.ingresses[u.name] = u.value
	}
}

func (v *view) setCertificate(u update[*mesh.Certificate]) { change(v, mesh.KindCertificate, u) }
