// Structures of C++ as classes of Python with named fields. Tensors are addresses there: `data_ptr()`, 0 where one is absent.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace mrsi_fast_bindings {

using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

// A class whose instances begin with every field at its default; a name that is no field is an AttributeError.
template <class T>
class Fields {
  public:
    Fields(pybind11::module_& module, const char* name) : class_(module, name) {
        class_.def(pybind11::init([] { return T{}; }));
    }

    template <class V>
    Fields& field(const char* name, V T::* member) {
        class_.def_readwrite(name, member);
        return *this;
    }

    template <class V>
    Fields& address(const char* name, V* T::* member) {
        class_.def_property(
            name, [member](const T& self) { return reinterpret_cast<Address>(self.*member); },
            [member](T& self, Address address) { self.*member = pointer<V>(address); });
        return *this;
    }

  private:
    pybind11::class_<T> class_;
};

}  // namespace mrsi_fast_bindings

// What every file of bindings says.
namespace py = pybind11;
using mrsi_fast_bindings::Address;
using mrsi_fast_bindings::Fields;
using mrsi_fast_bindings::pointer;
