package sds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
)

// DeltaSecrets implements the incremental variant.
func (s *Server) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	take := func(state *session, request *discoveryv3.DeltaDiscoveryRequest) {
		s.answer(state, request.GetResponseNonce(), request.GetErrorDetail())
		state.unsubscribe(request.GetResourceNamesUnsubscribe())
		state.subscribe(request.GetResourceNamesSubscribe())
		for name, version := range request.GetInitialResourceVersions() {
			state.sent[name] = version // a reconnect: Envoy has this one
		}
	}
	send := func(due []*secret, nonce string) error {
		response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce}
		for _, secret := range due {
			response.Resources = append(response.Resources, &discoveryv3.Resource{
				Name: secret.name, Version: secret.version, Resource: secret.body,
			})
			s.log.Debug("sent a secret", "name", secret.name, "version", secret.version)
		}
		return stream.Send(response)
	}
	return serve(stream.Context(), s, stream.Recv, take, send)
}

// StreamSecrets implements the state-of-the-world variant. A response holds the secrets
// that changed, which that variant allows for this type.
func (s *Server) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	take := func(state *session, request *discoveryv3.DiscoveryRequest) {
		nonce := request.GetResponseNonce()
		if nonce != "" && !s.answer(state, nonce, request.GetErrorDetail()) && state.nonce != "" {
			return // it answers an older response than the one that is out
		}
		state.replace(request.GetResourceNames())
	}
	send := func(due []*secret, nonce string) error {
		response := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, VersionInfo: due[0].version}
		for _, secret := range due {
			response.Resources = append(response.Resources, secret.body)
			s.log.Debug("sent a secret", "name", secret.name, "version", secret.version)
		}
		return stream.Send(response)
	}
	return serve(stream.Context(), s, stream.Recv, take, send)
}
