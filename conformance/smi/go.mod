module fairlead.io/fairlead/conformance/smi

go 1.26.0

require fairlead.io/fairlead/conformance/kubernetes v0.0.0

replace fairlead.io/fairlead/conformance/kubernetes => ../kubernetes
