module fairlead.io/fairlead/conformance/kubernetes

go 1.26.0
