// SPDX-License-Identifier: Apache-2.0

// Package gatewayapi reads the routes of the Gateway API (gateway.networking.k8s.io)
// for the planes that share them: gateway and linkerd.
//
//	HTTPRoute, GRPCRoute ── Of ──► Route ──► Rule ──► matches    Match
//	                                            ├──► filters    Conversion.Filters
//	                                            ├──► backends   Conversion.Backends
//	                                            └──► timeouts, retry, session
//
// It says what the API means and nothing about who may use it: which routes count,
// in which order, and for whom is each plane's own. Validate holds an object to what
// an API server would reject, and nothing else, because an object that one plane
// calls invalid is so for every plane. What a plane does not do is a diagnostic of
// its Translate.
package gatewayapi
